"""A model that `coe retrieval train` made from the base; its queries search the base's documents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from pydantic import Field

from coe.base.errors import ArtifactError
from coe.retrieval.experts.encoder import EncoderExpert, Sides
from coe.retrieval.types import ExpertOf
from coe.router import plugins
from coe.router.model_files.artifact import read_regular_file
from coe.router.protocols import Encoder
from coe.router.types import Record

MANIFEST_FILE = "trained.json"


class Options(Record):
    path: str = Field(min_length=1, description="folder that `coe retrieval train` wrote; relative to experts.yaml")


class Manifest(Record):
    """The content of `trained.json`, beside the files of the model."""

    base_fingerprint: str = Field(description="of the encoder whose documents it was trained against")
    kind: str = Field(description="of that encoder, which runs this model too")
    options: dict[str, str | int | float | bool | None] = Field(description="of that encoder, without its model")
    created_at: str
    dev_ndcg: float
    dev_ndcg_base: float


@dataclass(frozen=True)
class TrainedExpert(EncoderExpert):
    """An expert with queries by the model, which did not see `training.held_out` queries, and documents by the base."""


def attached(folder: Path, manifest: Manifest, queries: Encoder, name: str, base: Encoder) -> TrainedExpert:
    """Return the expert over a base; raise ArtifactError if it was trained for another one."""
    if base.fingerprint != manifest.base_fingerprint:
        raise ArtifactError(
            f"{folder}: was trained for base {manifest.base_fingerprint[:12]}, this one is {base.fingerprint[:12]}: "
            "its queries would not meet these documents; train it again"
        )
    return TrainedExpert(name, queries, base, Sides(shares_documents=True))


def build(options: Options) -> ExpertOf:
    """Return a builder of experts.

    Raises:
        ArtifactError: the manifest is missing or invalid.
        ConfigError, MissingWeightsError, MissingExtraError: as the base's kind of encoder does.
    """
    folder = Path(options.path)
    try:
        manifest = Manifest.model_validate_json(read_regular_file(folder / MANIFEST_FILE))
    except ValueError as error:
        raise ArtifactError(f"{folder / MANIFEST_FILE}: is not the manifest of a retrieval expert") from error
    queries = plugins.build("router.encoders", manifest.kind, {**manifest.options, "model": str(folder)})
    return partial(attached, folder, manifest, cast(Encoder, queries))


EXAMPLES = (Options(path="trained/medical"),)
