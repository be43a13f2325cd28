"""Signed feature hashing of words and character trigrams (Weinberger et al. 2009). It needs no weights. Alone it knows
spelling and no meaning, which is enough for tests; next to an embedding it gives a classifier the words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from pydantic import Field

from coe.router.reading.features import fingerprint, unit_rows
from coe.router.types import FloatArray, Record

USUAL_CHARS = 24
"""Longer words are hashed again each time, so what is kept of usual ones stays within some megabytes."""


class Options(Record):
    dim: int = Field(default=256, ge=8, le=8192)


@dataclass(frozen=True)
class HashingEncoder:
    """Each feature adds +1 or -1 to one of d dimensions, both given by its hash."""

    dim: int
    is_inline: bool = True

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("hashing", self.dim)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            hashes = np.frombuffer(b"".join(map(hashes_of, text.lower().split())), dtype=">u8")
            places = (hashes >> np.uint64(1)) % np.uint64(self.dim)
            signs = np.where(hashes & np.uint64(1), 1.0, -1.0)
            vectors[row] = np.bincount(places.astype(np.int64), weights=signs, minlength=self.dim)
        return unit_rows(vectors)


def hashes_of(word: str) -> bytes:
    """Return 64-bit hashes of a word and of its trigrams, with its ends marked; those of short words are cached."""
    return usual_hashes(word) if len(word) <= USUAL_CHARS else usual_hashes.__wrapped__(word)


@lru_cache(maxsize=32768)
def usual_hashes(word: str) -> bytes:
    padded = f"<{word}>"
    features = [word, *(padded[i : i + 3] for i in range(len(padded) - 2))]
    return b"".join(hashlib.blake2b(feature.encode(), digest_size=8).digest() for feature in features)


def build(options: Options) -> HashingEncoder:
    return HashingEncoder(options.dim)


EXAMPLES = (Options(), Options(dim=64))
