"""The mean of the tokens' vectors, looked up in a table: no network, so a query takes a fraction of a millisecond.

The table is the only matrix of a safetensors file, such as that of a model2vec folder (Tulkens & van Dongen 2024). A
model2vec folder may have a weight per token and shared rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import Field

from coe.base.errors import ConfigError
from coe.router.model_files.tokenizer_files import head_and_tail, open_tokenizer
from coe.router.model_files.weights import file_sha256, resolve_weights
from coe.router.reading.features import fingerprint
from coe.router.types import FloatArray, Record

VERSION = 3
"""Raised with every change of the vectors that the options do not show."""


class Options(Record):
    weights: str = Field(min_length=1, description="a safetensors file, or a model2vec folder")
    tokenizer: str | None = Field(default=None, description="default: the tokenizer.json beside the weights")
    max_tokens: int = Field(default=512, ge=8, description="of a longer text, half at its head and half at its tail")


class Table(Protocol):
    """Vectors of tokens."""

    @property
    def dim(self) -> int: ...

    def mean(self, tokens: Sequence[int]) -> FloatArray:
        """Return the mean vector of one token or more, of shape (d,)."""
        ...


@dataclass(frozen=True)
class Matrix:
    """A table (tokens, d) in float32."""

    values: FloatArray

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    def mean(self, tokens: Sequence[int]) -> FloatArray:
        return np.asarray(self.values[np.array(tokens)].mean(axis=0))


@dataclass(frozen=True)
class StaticEncoder:
    """`unknown` is the token of what the table does not hold, None when there is none."""

    table: Table
    tokenize: Callable[[str], Sequence[int]]
    unknown: int | None
    max_tokens: int
    fingerprint: str
    is_inline: bool = True

    @property
    def dim(self) -> int:
        return self.table.dim

    def encode(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            tokens = self.tokenize(text)
            if self.unknown in tokens:
                tokens = [token for token in tokens if token != self.unknown]
            tokens = head_and_tail(tokens, self.max_tokens)
            if tokens and not text.isspace():
                mean = self.table.mean(tokens)
                norm = sqrt(mean @ mean)
                vectors[row] = mean / norm if norm > 0 else 0.0
        return vectors


def read_matrix(weights: Path) -> Matrix:
    """Read the file's matrix, of shape (tokens, d); with model2vec's `mapping` each token's row, times its `weights`.
    It raises ConfigError if the file is not a safetensors file, or does not hold a single matrix."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(weights)
    except SafetensorError as error:
        raise ConfigError(f"static encoder: {weights} is not a safetensors file") from error
    matrices = [array for array in arrays.values() if array.ndim == 2]
    if len(matrices) != 1:
        raise ConfigError(f"static encoder: {weights.name} holds {len(matrices)} matrices; expected one, (tokens, d)")
    table = np.asarray(matrices[0], dtype=np.float32)
    if "mapping" in arrays:
        table = table[arrays["mapping"].astype(np.int64)]
    if "weights" in arrays:
        table = table * arrays["weights"].astype(np.float32)[:, None]
    return Matrix(table)


def read_vocabulary(path: Path) -> tuple[Callable[[str], Sequence[int]], int | None]:
    """Return the tokenizer of a tokenizer.json, without special tokens, and its unknown token if there is one."""
    tokenizer = open_tokenizer(path)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, unknown


def build(options: Options) -> StaticEncoder:
    """Build the encoder from its files.

    Raises:
        ConfigError: the file holds no single matrix.
        MissingWeightsError: a file is not there.
    """
    weights = resolve_weights(options.weights)
    if weights.is_dir():
        weights = resolve_weights(str(weights / "model.safetensors"))
    tokenizer_file = resolve_weights(options.tokenizer or str(weights.parent / "tokenizer.json"))
    tokenize, unknown = read_vocabulary(tokenizer_file)
    return StaticEncoder(
        table=read_matrix(weights),
        tokenize=tokenize,
        unknown=unknown,
        max_tokens=options.max_tokens,
        fingerprint=fingerprint(
            "static", VERSION, file_sha256(weights), file_sha256(tokenizer_file), options.max_tokens
        ),
    )


IMPORTS = ("tokenizers",)
EXAMPLES = (Options(weights="model2vec"), Options(weights="table.safetensors", tokenizer="words.json", max_tokens=64))
