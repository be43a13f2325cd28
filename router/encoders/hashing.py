"""Signed feature hashing of words and character trigrams (Weinberger et al. 2009). It needs no weights.

Alone it knows spelling and no meaning, which is enough for tests; next to an embedding it gives a classifier the words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from router.features import unit_rows
from router.types import FloatArray
from router.weights import fingerprint

USUAL_CHARS, KEPT_WORDS = 24, 8192
"""Longer words are hashed again each time, so what is kept of usual ones stays within some megabytes."""


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

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
            hashes = np.frombuffer(b"".join(map(known_hashes.__getitem__, text.lower().split())), dtype="<u8")
            # The last bit is the sign of a feature, the others its place.
            counts = np.bincount((hashes % np.uint64(2 * self.dim)).astype(np.int64), minlength=2 * self.dim)
            vectors[row] = counts[1::2] - counts[::2]
        return unit_rows(vectors)


def hashes_of(word: str) -> bytes:
    """64-bit hashes of a word and of its trigrams, its ends marked."""
    padded = f"<{word}>"
    features = [word, *(padded[i : i + 3] for i in range(len(padded) - 2))]
    # An ordinary number begins with its last byte in memory.
    return b"".join(hashlib.blake2b(feature.encode(), digest_size=8).digest()[::-1] for feature in features)


class KnownHashes(dict[str, bytes]):
    """`hashes_of` each word that is looked up. Those of usual words are kept. When there would be more than
    `KEPT_WORDS`, all are given up, which threads need no lock for."""

    def __missing__(self, word: str) -> bytes:
        made = hashes_of(word)
        if len(word) <= USUAL_CHARS:
            if len(self) >= KEPT_WORDS:
                self.clear()
            self[word] = made
        return made


known_hashes = KnownHashes()


def build(options: Options) -> HashingEncoder:
    return HashingEncoder(options.dim)


EXAMPLES = (Options(), Options(dim=64))
