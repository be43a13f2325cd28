"""A static embedding: the mean of the tokens' vectors. Sub-millisecond, no neural network at run time.

The default weights are WordLlama's (MIT, 256 dimensions; Miller 2024), read as data: that package is not imported. A
model2vec folder (Tulkens & van Dongen 2024) works too, with its weight per token and its shared rows where it has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from router.encoders._tokenizer import open_tokenizer
from router.errors import ConfigError
from router.types import FloatArray
from router.weights import file_sha256, fingerprint, resolve_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = Field(
        default="package:wordllama/weights/l2_supercat_256.safetensors",
        description="a safetensors file, or a model2vec folder, whose own tokenizer.json is then used",
    )
    tokenizer: str = "package:wordllama/tokenizers/l2_supercat_tokenizer_config.json"
    max_tokens: int = Field(default=512, ge=8, description="tokens after these are not read")


@dataclass(frozen=True)
class StaticEncoder:
    """`table` (tokens, d) float32; `unknown` is the token that stands for nothing, None when there is none."""

    table: NDArray[np.float32]
    tokenizer: Tokenizer
    unknown: int | None
    max_tokens: int
    fingerprint: str
    is_inline: bool = True

    @property
    def dim(self) -> int:
        return int(self.table.shape[1])

    def encode(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, encoding in enumerate(self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)):
            tokens = [token for token in encoding.ids if token != self.unknown][: self.max_tokens]
            if tokens and texts[row].strip():
                mean = self.table[tokens].mean(axis=0)
                norm = float(np.linalg.norm(mean))
                vectors[row] = mean / norm if norm > 0 else 0.0
        return vectors


def read_table(weights: Path) -> NDArray[np.float32]:
    """(tokens, d): the file's matrix; with model2vec's `mapping` its row per token, times `weights` per token.

    Raises:
        ConfigError: the file holds no single matrix, or is no safetensors file.
    """
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
    return table


def build(options: Options) -> StaticEncoder:
    """Raises MissingWeightsError; ConfigError when the file holds no single matrix."""
    weights = resolve_weights(options.weights)
    if weights.is_dir():
        folder = str(weights)
        weights, tokenizer_file = (
            resolve_weights(f"{folder}/{name}") for name in ("model.safetensors", "tokenizer.json")
        )
    else:
        tokenizer_file = resolve_weights(options.tokenizer)
    tokenizer = open_tokenizer(tokenizer_file)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return StaticEncoder(
        table=read_table(weights),
        tokenizer=tokenizer,
        unknown=tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or ""),
        max_tokens=options.max_tokens,
        fingerprint=fingerprint("static", file_sha256(weights), file_sha256(tokenizer_file), options.max_tokens),
    )


IMPORTS, EXTRA = ("tokenizers",), "encoders"
EXAMPLES = (Options(), Options(max_tokens=64))
