"""A LoRA adapter on the query side of a base that runs adapters, read from a PEFT folder: no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from coe.base.errors import ArtifactError
from coe.retrieval.adaptable import LINEAR, AdaptableEncoder, Lora, LoraLayer
from coe.retrieval.types import ExpertOf
from coe.router.artifact import read_arrays, read_regular_file
from coe.router.features import fingerprint
from coe.router.protocols import Encoder
from coe.router.types import FloatArray, Record

MANIFEST_FILE = "manifest.json"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


class Options(Record):
    path: str = Field(min_length=1, description="folder that `coe retrieval train` wrote; relative to experts.yaml")


class AdapterManifest(Record):
    """The content of an adapter's `manifest.json`; PEFT's own files are beside it."""

    schema_version: int = Field(default=1, ge=1, le=1)
    name: str
    base_fingerprint: str = Field(description="of the encoder whose documents it was trained against")
    weights_sha256: str
    created_at: str
    settings: dict[str, str | int | float | bool] = Field(default_factory=dict)
    data_fingerprint: str = Field(description="hash of the training pairs")
    held_out: int = Field(ge=0, description="train queries that it never saw")
    pairs: int = Field(ge=0, description="query and document pairs that it was trained on")
    dev_ndcg: float | None = None
    dev_ndcg_base: float | None = None

    @property
    def held_out_share(self) -> float:
        """Share of the train queries, by `retrieval.training.recipe.hash_share`, that it never saw; 0 if unknown."""
        return float(self.settings.get("held_out", 0.0))


@dataclass(frozen=True)
class AdapterExpert:
    """Queries through base and adapter, documents through base alone."""

    name: str
    base: AdaptableEncoder
    lora: Lora
    fingerprint: str
    held_out_share: float

    @property
    def space(self) -> str:
        return self.base.fingerprint

    @property
    def dim(self) -> int:
        return self.base.dim

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        return self.base.encode_with(texts, [self.lora] * len(texts))

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        return self.base.encode(texts)


def attached(folder: Path, manifest: AdapterManifest, lora: Lora, name: str, base: Encoder) -> AdapterExpert:
    """Raises ArtifactError when the base is another one, or runs none."""
    if not isinstance(base, AdaptableEncoder):
        raise ArtifactError(
            f"{folder}: an adapter needs an encoder that runs it, such as 'bert' of coe-offline; retrieval.encoder is "
            f"'{type(base).__name__}'"
        )
    if base.fingerprint != manifest.base_fingerprint:
        raise ArtifactError(
            f"{folder}: was trained for base {manifest.base_fingerprint[:12]}, this one is {base.fingerprint[:12]}: "
            "its queries would not meet these documents; train it again"
        )
    for part, layer in lora.items():
        expected = base.shape_of(part)
        if expected != (layer.down.shape[0], layer.up.shape[1]):
            raise ArtifactError(f"{folder}: '{part}' does not fit the base, whose shape there is {expected}")
    identity = fingerprint("adapter", base.fingerprint, manifest.weights_sha256)
    return AdapterExpert(name, base, lora, identity, manifest.held_out_share)


def read_manifest(folder: Path) -> AdapterManifest:
    """Raises ArtifactError."""
    path = folder / MANIFEST_FILE
    try:
        return AdapterManifest.model_validate_json(read_regular_file(path))
    except ValueError as error:
        raise ArtifactError(f"{path}: is not the manifest of a retrieval adapter") from error


def lora_from_peft(arrays: Mapping[str, np.ndarray], scale: float, file: Path) -> dict[str, LoraLayer]:
    """Layers by the product's name, from PEFT's `...<product>.lora_A.weight` (r, in) and `lora_B.weight` (out, r).

    Raises:
        ArtifactError: an array is not part of an adapter, or lacks its other half.
    """
    halves: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        start = key.find("encoder.layer.")
        product, _, half = key[max(start, 0) :].removesuffix(".weight").rpartition(".")
        if start < 0 or half not in ("lora_A", "lora_B") or not product.endswith(LINEAR) or array.ndim != 2:
            raise ArtifactError(
                f"{file}: array '{key}' is not a LoRA matrix of a product; allowed: {', '.join(LINEAR)}"
            )
        halves.setdefault(product, {})[half] = np.asarray(array, dtype=np.float32)
    layers = {}
    for product, pair in halves.items():
        if len(pair) != 2 or pair["lora_A"].shape[0] != pair["lora_B"].shape[1]:
            raise ArtifactError(f"{file}: '{product}' lacks a half, or its halves differ in rank")
        layers[product] = LoraLayer(
            down=np.ascontiguousarray(pair["lora_A"].T), up=np.ascontiguousarray(pair["lora_B"].T * np.float32(scale))
        )
    return layers


def build(options: Options) -> ExpertOf:
    """Raises ArtifactError when a file is missing, changed, or of another layout."""
    folder = Path(options.path)
    manifest = read_manifest(folder)
    arrays = read_arrays(folder / WEIGHTS_FILE, manifest.weights_sha256)
    try:
        settings = json.loads(read_regular_file(folder / CONFIG_FILE))
        scale = float(settings["lora_alpha"]) / float(settings["r"])
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ArtifactError(f"{folder / CONFIG_FILE}: lacks a valid r and lora_alpha") from error
    if settings.get("use_rslora") or settings.get("use_dora") or settings.get("rank_pattern"):
        raise ArtifactError(
            f"{folder / CONFIG_FILE}: only plain LoRA is applied; use_rslora, use_dora and rank_pattern are not"
        )
    return partial(attached, folder, manifest, lora_from_peft(arrays, scale, folder))


EXAMPLES = (Options(path="adapters/retrieval/medical"),)
