"""A static embedding: the mean of the tokens' vectors. Sub-millisecond, no neural network at run time.

The default weights are WordLlama's (MIT, 256 dimensions; Miller 2024), read as data: that package is not imported. A
model2vec folder works too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from router.errors import ConfigError
from router.types import FloatArray
from router.weights import file_sha256, fingerprint, resolve_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = "package:wordllama/weights/l2_supercat_256.safetensors"
    tokenizer: str = "package:wordllama/tokenizers/l2_supercat_tokenizer_config.json"
    max_tokens: int = Field(default=512, ge=8, description="tokens after these are not read")


@dataclass(frozen=True)
class StaticEncoder:
    """`table` (tokens, d) float32."""

    table: NDArray[np.float32]
    tokenizer: Tokenizer
    max_tokens: int
    fingerprint: str
    is_inline: bool = True

    @property
    def dim(self) -> int:
        return int(self.table.shape[1])

    def encode(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, encoding in enumerate(self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)):
            tokens = encoding.ids[: self.max_tokens]
            if tokens:
                mean = self.table[tokens].mean(axis=0)
                norm = float(np.linalg.norm(mean))
                vectors[row] = mean / norm if norm > 0 else 0.0
        return vectors


def build(options: Options) -> StaticEncoder:
    """Raises MissingWeightsError; ConfigError when the file holds no single matrix."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    weights, tokenizer = resolve_weights(options.weights), resolve_weights(options.tokenizer)
    matrices = [array for array in load_file(weights).values() if array.ndim == 2]
    if len(matrices) != 1:
        raise ConfigError(f"static encoder: {weights.name} holds {len(matrices)} matrices; expected one, (tokens, d)")
    return StaticEncoder(
        table=np.asarray(matrices[0], dtype=np.float32),
        tokenizer=Tokenizer.from_file(str(tokenizer)),
        max_tokens=options.max_tokens,
        fingerprint=fingerprint("static", file_sha256(weights), file_sha256(tokenizer), options.max_tokens),
    )


EXAMPLES = (Options(), Options(max_tokens=64))
