"""The pilot library on disk: base embeddings of labelled queries with every arm's nDCG@10, never a pickle.

A library is a folder with `manifest.json` and the arrays, which the manifest names by their hash. The version is the
hash of everything that changes a decision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from coe.base.errors import ArtifactError
from coe.base.whole_files import write_whole
from coe.retrieval.routing.domains import Domains, find_domains
from coe.retrieval.types import BASE, Arm
from coe.router.model_files.artifact import (
    content_version,
    read_arrays,
    read_regular_file,
    require_array,
    require_finite,
)
from coe.router.types import BoolArray, FloatArray, IntArray, Record

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILES = "weights-*.safetensors"


class RoutingSettings(Record):
    """Settings chosen on dev queries; see docs/results/retrieval.md."""

    method: Literal["gain"] = "gain"  # libraries that are there name it
    temperature: float = Field(default=0.05, gt=0, description="of the softmax over similarities")
    prior_mass: float = Field(
        default=0.003, gt=0, description="share of its own queries' typical mass at which a data set has half a say"
    )
    margin: float = Field(default=0.0, ge=0, description="predicted gain over the plain arm that a switch needs")


class LibraryManifest(Record):
    """The content of a pilot library's `manifest.json`."""

    schema_version: Literal[4] = 4
    version: str
    created_at: str
    base_fingerprint: str
    dim: int = Field(gt=0)
    arms: tuple[Arm, ...] = Field(min_length=1, description="columns; the first is base alone")
    expert_fingerprints: dict[str, str] = Field(description="expert -> identity it had when it was measured")
    data_sets: tuple[str, ...]
    settings: RoutingSettings = RoutingSettings()
    single_settings: RoutingSettings | None = Field(default=None, description="where nothing may be fused, if others")
    weights_sha256: str


@dataclass(frozen=True)
class Pilots:
    """n labelled queries over m arms.

    `embeddings` (n, d) are by base, unit rows; `scores` (n, m) are nDCG@10, 0 if not `measured` (n, m). `data_set` (n,)
    has rows of the library's data sets; `keys` (n,) identify labelled queries without their texts. `located` (k, d) are
    base embeddings of queries without a label, and `located_in` (k,) their data sets; they show where a data set lies.
    """

    embeddings: FloatArray
    scores: FloatArray
    measured: BoolArray
    data_set: IntArray
    keys: IntArray
    located: FloatArray
    located_in: IntArray


@dataclass(frozen=True)
class PilotLibrary(Pilots):
    """Pilots with the manifest of their measurement."""

    manifest: LibraryManifest

    @cached_property
    def domains(self) -> Domains:
        """The domains of its data sets with a labelled query, in order of their numbers."""
        known = np.isin(self.located_in, self.data_set)
        return find_domains(
            np.concatenate([self.embeddings, self.located[known]]),
            np.concatenate([self.data_set, self.located_in[known]]),
        )

    @property
    def arms(self) -> tuple[Arm, ...]:
        return self.manifest.arms


def make_library(
    pilots: Pilots,
    arms: Sequence[Arm],
    data_sets: Sequence[str],
    expert_fingerprints: Mapping[str, str],
    *,
    created_at: str,
    settings: RoutingSettings | None = None,
    single_settings: RoutingSettings | None = None,
) -> PilotLibrary:
    """Build a library with its version. `expert_fingerprints` include base's, under `BASE`."""
    arrays: dict[str, Any] = {name: getattr(pilots, name) for name in STORED}
    arrays["scores"] = np.where(pilots.measured, pilots.scores, 0.0).astype(np.float32)
    manifest = LibraryManifest(
        version="0" * 16,
        created_at=created_at,
        base_fingerprint=expert_fingerprints[BASE],
        dim=int(pilots.embeddings.shape[1]),
        arms=tuple(arms),
        expert_fingerprints=dict(expert_fingerprints),
        data_sets=tuple(data_sets),
        settings=settings or RoutingSettings(),
        single_settings=single_settings,
        weights_sha256=hashlib.sha256(packed_arrays(arrays)).hexdigest(),
    )
    return PilotLibrary(manifest=versioned(manifest), **arrays)


def versioned(manifest: LibraryManifest) -> LibraryManifest:
    """Return the manifest with the version of its content."""
    return manifest.model_copy(update={"version": content_version(manifest.model_dump(mode="json"))})


STORED = {
    "data_set": np.int64,
    "embeddings": np.float32,
    "keys": np.int64,
    "located": np.float32,
    "located_in": np.int64,
    "measured": np.uint8,
    "scores": np.float32,
}
"""Arrays of a library and their types on disk."""


def packed_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(arrays[name], dtype=kind) for name, kind in STORED.items()})


def save_library(library: PilotLibrary, folder: Path) -> None:
    """Store the library; only one process may write at a time.

    The arrays get a name of their own, and the manifest is replaced last and atomically. So a reader, or a restart
    after a kill, finds the old library whole or the new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = packed_arrays({name: getattr(library, name) for name in STORED})
    kept = weights_file(folder, library.manifest)
    write_whole(kept, weights, is_synced=True)
    write_whole(folder / MANIFEST_FILE, library.manifest.model_dump_json(indent=1), is_synced=True)
    for old in folder.glob(WEIGHTS_FILES):
        if old != kept:
            old.unlink(missing_ok=True)


def weights_file(folder: Path, manifest: LibraryManifest) -> Path:
    """Return the file of that manifest's arrays."""
    return folder / WEIGHTS_FILES.replace("*", manifest.weights_sha256[:16])


def is_library(folder: Path) -> bool:
    """Return whether a library was ever written there; it may be damaged."""
    return (folder / MANIFEST_FILE).exists()


def load_library(folder: Path) -> PilotLibrary:
    """Load a library; raise ArtifactError if a file is missing, changed, not finite or of another layout."""
    path, manifest = folder / MANIFEST_FILE, read_manifest(folder)
    if not weights_file(folder, manifest).exists():
        manifest = read_manifest(folder)  # another library was written in between
    file = weights_file(folder, manifest)
    arrays = read_arrays(file, manifest.weights_sha256)
    if manifest.arms[0].members != (BASE,):
        raise ArtifactError(f"{path}: the first arm is '{manifest.arms[0].name}'; expected '{BASE}'")
    embeddings = require_finite(arrays, "embeddings", (None, manifest.dim))
    shape = (len(embeddings), len(manifest.arms))
    located = require_finite(arrays, "located", (None, manifest.dim))
    places = {}
    for name, count in (("data_set", len(embeddings)), ("located_in", len(located))):
        places[name] = np.asarray(require_array(arrays, name, (count,)), dtype=np.int64)
        if count and not 0 <= places[name].min() <= places[name].max() < len(manifest.data_sets):
            raise ArtifactError(f"{file}: '{name}' must hold 0 to {len(manifest.data_sets) - 1}")
    return PilotLibrary(
        manifest=manifest,
        embeddings=embeddings,
        scores=require_finite(arrays, "scores", shape),
        measured=np.asarray(require_array(arrays, "measured", shape)).astype(bool),
        data_set=places["data_set"],
        keys=np.asarray(require_array(arrays, "keys", (len(embeddings),)), dtype=np.int64),
        located=located,
        located_in=places["located_in"],
    )


def read_manifest(folder: Path) -> LibraryManifest:
    """Return the verified manifest; may raise ArtifactError."""
    path = folder / MANIFEST_FILE
    try:
        manifest = LibraryManifest.model_validate(json.loads(read_regular_file(path)))
    except ValueError as error:
        raise ArtifactError(
            f"{path}: is not the manifest of a pilot library; run `coe retrieval pilots --rebuild`"
        ) from error
    expected = versioned(manifest).version
    if manifest.version != expected:
        raise ArtifactError(f"{path}: says version {manifest.version}, its content gives {expected}; it was changed")
    return manifest
