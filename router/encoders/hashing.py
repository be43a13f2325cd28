"""A fake for tests: signed feature hashing of words and character trigrams (Weinberger et al. 2009). Learns nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from router.types import FloatArray
from router.weights import fingerprint


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(default=256, ge=8, le=8192)


@dataclass(frozen=True)
class HashingEncoder:
    """Each feature adds +1 or -1 to one of d dimensions, both given by its hash."""

    dim: int
    is_inline: bool = True

    @property
    def fingerprint(self) -> str:
        return fingerprint("hashing", self.dim)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for feature in features(text):
                digest = hashlib.blake2b(feature.encode(), digest_size=8).digest()
                value = int.from_bytes(digest, "big")
                vectors[row, (value >> 1) % self.dim] += 1.0 if value & 1 else -1.0
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms > 0, norms, 1.0)
        return vectors


def features(text: str) -> Iterator[str]:
    words = text.lower().split()
    for word in words:
        yield word
        padded = f"<{word}>"
        yield from (padded[i : i + 3] for i in range(len(padded) - 2))


def build(options: Options) -> HashingEncoder:
    return HashingEncoder(options.dim)


EXAMPLES = (Options(), Options(dim=64))
