"""A trained router on disk: `manifest.json` and `weights.safetensors`, named by content, never a pickle.

The version is the first 16 hex digits of a SHA-256 over everything that changes a decision. That is the weights' hash
and the manifest without `version`, `created_at`, `metrics` and `parents`. A changed byte in either file is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from coe.base.errors import ArtifactError
from coe.router.types import Metric, Record

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"
NOT_IN_VERSION = frozenset({"version", "created_at", "metrics", "parents"})

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]


class ComponentSpec(Record):
    """A plugin as recorded in a manifest: its kind and validated options."""

    kind: str
    options: dict[str, object] = Field(default_factory=dict)


class EncoderSpec(ComponentSpec):
    """The encoder that made the training embeddings. Serving with another fingerprint is refused."""

    fingerprint: str
    dim: int = Field(gt=0)


class RouterManifest(Record):
    """Content of `manifest.json` of a trained router. `version` is the hash of everything that changes a decision."""

    schema_version: Literal[1] = 1
    version: str
    created_at: str = Field(description="ISO 8601, UTC")
    parents: tuple[str, ...] = ()
    encoder: EncoderSpec
    classifier: ComponentSpec
    scorer: ComponentSpec
    categories: tuple[str, ...] = Field(min_length=1, description="learned categories, in the order of the arrays")
    experts: tuple[str, ...] = Field(min_length=1, description="experts, in the order of the arrays")
    temperature: float = Field(gt=0, description="probabilities are softmax(log p / temperature)")
    data_fingerprints: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, Metric] = Field(default_factory=dict)
    weights_sha256: str


@dataclass(frozen=True)
class RouterArtifact:
    """A manifest with its arrays; names are `part.array`, e.g. `classifier.weights`."""

    manifest: RouterManifest
    arrays: Mapping[str, NDArray[np.generic]]

    def part(self, prefix: str) -> Arrays:
        """Return the arrays of one part, without the prefix."""
        return {name.split(".", 1)[1]: array for name, array in self.arrays.items() if name.startswith(f"{prefix}.")}


def content_version(manifest: Mapping[str, object]) -> str:
    """Return the version of a manifest, of a router or of a pilot library, from its plain values."""
    counted = {key: value for key, value in manifest.items() if key not in NOT_IN_VERSION}
    return hashlib.sha256(json.dumps(counted, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def made_artifact(manifest: Mapping[str, object], arrays: Mapping[str, NDArray[np.generic]]) -> RouterArtifact:
    """Build an artifact that is on no disk yet.

    Args:
        manifest: fields of `RouterManifest` without `version` and `weights_sha256`.
    """
    weights = hashlib.sha256(weights_of(arrays)).hexdigest()
    fields = RouterManifest.model_validate(dict(manifest) | {"version": "0" * 16, "weights_sha256": weights})
    version = content_version(fields.model_dump(mode="json"))
    return RouterArtifact(fields.model_copy(update={"version": version}), dict(arrays))


def weights_of(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the content of the file of arrays."""
    import numpy as np
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})


def save_artifact(
    root: Path, manifest: Mapping[str, object], arrays: Mapping[str, NDArray[np.generic]]
) -> RouterArtifact:
    """Build an artifact as `made_artifact` does, and write it."""
    return written(root, made_artifact(manifest, arrays))


def written(root: Path, artifact: RouterArtifact) -> RouterArtifact:
    """Store the artifact at `root/<version>/` and return it. An equal one there is kept, a damaged one replaced."""
    target = root / artifact.manifest.version
    if not is_intact(target):
        root.mkdir(parents=True, exist_ok=True)
        plain = artifact.manifest.model_dump(mode="json")
        with tempfile.TemporaryDirectory(dir=root, prefix=".new-") as scratch:
            Path(scratch, WEIGHTS_FILE).write_bytes(weights_of(artifact.arrays))
            Path(scratch, MANIFEST_FILE).write_text(json.dumps(plain, indent=1, ensure_ascii=False), encoding="utf-8")
            staged = Path(scratch).with_name(f".ready-{target.name}-{os.getpid()}")
            shutil.copytree(scratch, staged)
            put_in_place(staged, target)
    return artifact


def is_intact(folder: Path) -> bool:
    """Return whether a folder exists and holds an artifact that can be loaded."""
    try:
        load_artifact(folder)
    except ArtifactError:
        return False
    return True


def put_in_place(staged: Path, target: Path) -> None:
    """Move an artifact to its place, where a damaged one may be, or raise OSError if it cannot be moved."""
    if target.exists():
        shutil.rmtree(target)
    staged.replace(target)


def load_artifact(folder: Path) -> RouterArtifact:
    """Read and verify an artifact. It raises ArtifactError if a file is missing, a symlink, not what its hash says, of
    another schema, or not finite."""
    manifest = read_manifest(folder)
    return RouterArtifact(manifest, read_arrays(folder / WEIGHTS_FILE, manifest.weights_sha256))


def read_manifest(folder: Path) -> RouterManifest:
    """Read and verify the manifest of an artifact folder, without its arrays. Errors are those of `load_artifact`."""
    path = folder / MANIFEST_FILE
    try:
        plain = json.loads(read_regular_file(path))
        manifest = RouterManifest.model_validate(plain)
    except ValueError as error:
        advice = "if a later coe made it, `coe router --back` returns to the one before"
        raise ArtifactError(f"{path}: is not a router manifest ({first_line(error)}); {advice}") from error
    expected = content_version(plain)
    if manifest.version != expected:
        raise ArtifactError(f"{path}: says version {manifest.version}, its content gives {expected}; it was changed")
    return manifest


def read_regular_file(path: Path) -> bytes:
    if path.is_symlink():
        raise ArtifactError(f"{path}: is a symbolic link; an artifact holds regular files only")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error


def read_arrays(path: Path, sha256: str) -> Arrays:
    """Read the arrays of a file of weights whose manifest holds its hash. Errors are those of `load_artifact`."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    weights = read_regular_file(path)
    found = hashlib.sha256(weights).hexdigest()
    if found != sha256:
        raise ArtifactError(f"{path}: SHA-256 is {found[:12]}..., the manifest says {sha256[:12]}...")
    try:
        arrays: Arrays = dict(load(weights))
    except (SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path}: is not a safetensors file ({first_line(error)})") from error
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise ArtifactError(f"{path}: array '{name}' holds values that are not finite")
    return arrays


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def require_finite(
    arrays: Mapping[str, NDArray[np.generic]], name: str, shape: tuple[int | None, ...]
) -> NDArray[np.float32]:
    """Return an array as `require_array` does, as float32. It raises ArtifactError if it is missing, has another shape,
    or holds NaN or infinity."""
    import numpy as np

    array = np.asarray(require_array(arrays, name, shape), dtype=np.float32)
    if not np.isfinite(array).all():
        raise ArtifactError(f"array '{name}' holds values that are not finite")
    return array


def require_array(
    arrays: Mapping[str, NDArray[np.generic]], name: str, shape: tuple[int | None, ...]
) -> NDArray[np.generic]:
    """Return an array of an artifact after a check of its shape; None in `shape` admits any length. It raises
    ArtifactError if it is missing, or has another shape."""
    if name not in arrays:
        raise ArtifactError(f"array '{name}' is missing; there are: {', '.join(sorted(arrays)) or 'none'}")
    array = arrays[name]
    if len(array.shape) != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, array.shape, strict=True)
    ):
        raise ArtifactError(f"array '{name}' has shape {array.shape}; expected {shape}")
    return array
