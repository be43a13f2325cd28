"""BERT (Devlin et al. 2019) in numpy: no torch, no padding.

Texts of a batch are packed: their t tokens in all are the rows of one matrix, so a text's vector does not depend on its
neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from coe.base.errors import ConfigError
from coe.router.types import FloatArray

LINEAR = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""The products of a layer, by the names that the weights' file gives them."""


@cache
def libraries() -> ThreadpoolController:
    """BLAS of this process, in which several threads cost more than they bring for small products."""
    return ThreadpoolController()


@dataclass(frozen=True)
class BertShape:
    """Sizes of a model, as its config.json gives them."""

    layers: int
    heads: int
    hidden: int
    positions: int
    epsilon: float
    pooling: str


@dataclass(frozen=True)
class Packed:
    """Token ids (t,), positions (t,) and where each of n texts begins and ends, as (n + 1,) bounds."""

    ids: np.ndarray
    positions: np.ndarray
    bounds: tuple[int, ...]


def pack(token_ids: Sequence[Sequence[int]]) -> Packed:
    lengths = [len(ids) for ids in token_ids]
    return Packed(
        ids=np.array([token for ids in token_ids for token in ids], dtype=np.int64),
        positions=np.concatenate([np.arange(length) for length in lengths]),
        bounds=tuple(int(edge) for edge in np.concatenate([[0], np.cumsum(lengths)])),
    )


@dataclass(frozen=True)
class Bert:
    """The network. `weights` holds float32 arrays by the file's names, matrices transposed to (in, out)."""

    shape: BertShape
    weights: Mapping[str, FloatArray]

    def embed(self, token_ids: Sequence[Sequence[int]]) -> FloatArray:
        """(n, d) unit rows for n texts as token ids with their special tokens."""
        packed = pack(token_ids)
        with libraries().limit(limits=1, user_api="blas"):
            states = self.look_up(packed)
            for layer in range(self.shape.layers):
                states = self.run_layer(f"encoder.layer.{layer}", states, packed.bounds)
        pairs = list(pairwise(packed.bounds))
        if self.shape.pooling == "cls":
            pooled = np.stack([states[start] for start, _ in pairs])
        else:
            pooled = np.stack([states[start:end].mean(axis=0) for start, end in pairs])
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), dtype=np.float32)

    def look_up(self, packed: Packed) -> FloatArray:
        """(t, w): the embedding layer."""
        table = self.weights
        states = table["embeddings.word_embeddings.weight"][packed.ids]
        states = states + table["embeddings.position_embeddings.weight"][packed.positions]
        states += table["embeddings.token_type_embeddings.weight"][0]
        return self.norm("embeddings.LayerNorm", states)

    def run_layer(self, name: str, states: FloatArray, bounds: Sequence[int]) -> FloatArray:
        query, key, value = (self.linear(f"{name}.{part}", states) for part in LINEAR[:3])
        mixed = self.attend(query, key, value, bounds)
        states = self.norm(
            f"{name}.attention.output.LayerNorm", self.linear(f"{name}.attention.output.dense", mixed) + states
        )
        inner = gelu(self.linear(f"{name}.intermediate.dense", states))
        return self.norm(f"{name}.output.LayerNorm", self.linear(f"{name}.output.dense", inner) + states)

    def linear(self, name: str, states: FloatArray) -> FloatArray:
        result: FloatArray = states @ self.weights[f"{name}.weight"]
        result += self.weights[f"{name}.bias"]
        return result

    def attend(self, query: FloatArray, key: FloatArray, value: FloatArray, bounds: Sequence[int]) -> FloatArray:
        """(t, w): each text attends to itself alone."""
        width = self.shape.hidden // self.shape.heads
        scale = np.float32(1 / np.sqrt(width))
        result = np.empty_like(query)
        for start, end in pairwise(bounds):
            parts = [m[start:end].reshape(end - start, -1, width).transpose(1, 0, 2) for m in (query, key, value)]
            scores = (parts[0] * scale) @ parts[1].transpose(0, 2, 1)
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            result[start:end] = (scores @ parts[2]).transpose(1, 0, 2).reshape(end - start, -1)
        return result

    def norm(self, name: str, states: FloatArray) -> FloatArray:
        """Rows to mean 0 and variance 1, then scaled and shifted (Ba et al. 2016)."""
        centred = states - states.mean(axis=1, keepdims=True)
        variance = np.einsum("td,td->t", centred, centred)[:, None] / np.float32(centred.shape[1])
        centred /= np.sqrt(variance + np.float32(self.shape.epsilon))
        centred *= self.weights[f"{name}.weight"]
        centred += self.weights[f"{name}.bias"]
        return np.asarray(centred, dtype=np.float32)


def gelu(values: FloatArray) -> FloatArray:
    """x Phi(x), exact (Hendrycks & Gimpel 2016)."""
    from scipy.special import erf

    return np.asarray(values * (erf(values * np.float32(np.sqrt(0.5))) + np.float32(1)) * np.float32(0.5))


def read_shape(folder: Path) -> BertShape:
    """Raises ConfigError when the folder's model is not a BERT that this network computes."""
    config = read_json(folder / "config.json")
    try:
        if config.get("model_type") != "bert" or config.get("hidden_act", "gelu") != "gelu":
            raise ConfigError(
                f"bert encoder: {folder.name} is a '{config.get('model_type')}' with activation "
                f"'{config.get('hidden_act')}'; allowed: bert with gelu"
            )
        return BertShape(
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            hidden=int(config["hidden_size"]),
            positions=int(config["max_position_embeddings"]),
            epsilon=float(config["layer_norm_eps"]),
            pooling=read_pooling(folder),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"bert encoder: {folder / 'config.json'} lacks or misstates {error}") from error


def read_pooling(folder: Path) -> str:
    """Pooling that sentence-transformers uses for this model; mean if it does not say."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    settings = read_json(path)
    flags = [name for name, on in settings.items() if name.startswith("pooling_mode_") and on is True]
    modes = [str(settings["pooling_mode"])] if "pooling_mode" in settings else flags  # as version 6 writes it
    known = {"mean": "mean", "cls": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if len(modes) != 1 or modes[0] not in known:
        raise ConfigError(f"bert encoder: pooling {', '.join(modes) or 'none'} in {path}; allowed: {', '.join(known)}")
    return known[modes[0]]


def read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"bert encoder: {path} cannot be read as JSON") from error
    if not isinstance(values, dict):
        raise ConfigError(f"bert encoder: {path} holds no object")
    return values


def read_weights(path: Path, shape: BertShape) -> dict[str, FloatArray]:
    """Arrays by name, matrices of the products transposed. Raises ConfigError when one is missing."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"bert encoder: {path} is not a safetensors file") from error
    arrays = {name.removeprefix("bert."): array for name, array in arrays.items()}
    products = [f"encoder.layer.{layer}.{part}" for layer in range(shape.layers) for part in LINEAR]
    norms = [
        f"encoder.layer.{i}.{part}.LayerNorm" for i in range(shape.layers) for part in ("attention.output", "output")
    ]
    tables = [f"embeddings.{part}_embeddings.weight" for part in ("word", "position", "token_type")]
    pairs = [f"{name}.{end}" for name in (*products, *norms, "embeddings.LayerNorm") for end in ("weight", "bias")]
    lacking = [name for name in (*tables, *pairs) if name not in arrays]
    if lacking:
        raise ConfigError(f"bert encoder: {path} lacks {lacking[0]} and {len(lacking) - 1} other arrays")
    turned = {f"{name}.weight" for name in products}
    return {
        name: np.ascontiguousarray(arrays[name].T if name in turned else arrays[name], dtype=np.float32)
        for name in (*tables, *pairs)
    }
