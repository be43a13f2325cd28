"""Vectors that are found by the signs of random projections and then ranked by themselves.

A sketch has one bit per random hyperplane: the side on which the vector lies. The share of bits in which two sketches
differ grows with the angle between the vectors (Charikar 2002), so the rows whose sketches differ least from a query's
hold its nearest; those are ranked by their inner products. Shapes: n rows, d dimensions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.index.space import Hits, KeyArray, best
from router.types import FloatArray

BITS = 384
WORDS = BITS // 64
RANKED, RANKED_SHARE, RANKED_PER_HIT = 1_500, 1 / 500, 50
"""Rows that are ranked by themselves: the largest of a number, a share of all, and so many for each hit
(benchmarks/vector_index.py)."""

SCANNED_AT_ONCE, RANKED_AT_ONCE = 1 << 15, 512  # rows that stay in the processor's cache

Places = NDArray[np.int64]
Sketches = NDArray[np.uint64]
Halves = NDArray[np.float16]


@lru_cache(maxsize=8)
def hyperplanes(dim: int) -> FloatArray:
    """Normals (d, `BITS`) of random hyperplanes, orthogonal to each other as far as there are dimensions."""
    rng = np.random.default_rng(0)
    blocks = [np.linalg.qr(rng.standard_normal((dim, min(dim, BITS))))[0] for _ in range(-(-BITS // dim))]
    return np.concatenate(blocks, axis=1)[:, :BITS].astype(np.float32)


def sketched(vectors: NDArray[np.floating[Any]], normals: FloatArray) -> Sketches:
    """The sketches (`WORDS`, n) of (n, d) vectors."""
    return np.packbits(vectors.astype(np.float32) @ normals > 0, axis=1).view(np.uint64).T


def differences(sketches: Sketches, sketch: Sketches) -> NDArray[np.uint16]:
    """In how many bits (n,) each of (`WORDS`, n) differs from one (`WORDS`,)."""
    found = np.zeros(sketches.shape[1], dtype=np.uint16)
    for start in range(0, len(found), SCANNED_AT_ONCE):
        some = slice(start, start + SCANNED_AT_ONCE)
        for row, word in zip(sketches, sketch, strict=True):
            found[some] += np.bitwise_count(row[some] ^ word)
    return found


def products(vectors: Halves, query: FloatArray) -> FloatArray:
    """Inner products (n,) of (n, d) finite vectors with a query (d,).

    A half's bits, moved to their places in a single, give 2^-112 of its value: twice as fast as numpy's conversion.
    """
    bits = vectors.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= ~0x70000000
    found: FloatArray = bits.view(np.float32) @ (query.astype(np.float32) * np.float32(2.0**112))
    return found


class Rows:
    """Vectors by key, to which more can be added: those that it is made of stay as they are, and may be read-only.

    Args:
        keys: (n,).
        sketches: (`WORDS`, n).
        vectors: (n, d).
        normals: of the hyperplanes of the sketches.
    """

    def __init__(self, keys: KeyArray, sketches: Sketches, vectors: Halves, normals: FloatArray) -> None:
        self.keys, self.sketches, self.vectors, self.normals = keys, sketches, vectors, normals
        self._n = len(keys)
        self._is_held = np.ones(len(keys), dtype=bool)
        self._by_key: tuple[KeyArray, Places] | None = None  # keys that are held, sorted, and their places

    @classmethod
    def empty(cls, normals: FloatArray) -> Rows:
        sketches, vectors = np.empty((WORDS, 0), np.uint64), np.empty((0, len(normals)), np.float16)
        return cls(np.empty(0, np.int64), sketches, vectors, normals)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._is_held[: self._n]))

    def held(self) -> Places:
        """Places of all rows that were not removed."""
        return np.flatnonzero(self._is_held[: self._n])

    def find(self, keys: KeyArray) -> Places:
        """Places of those of the keys (k,) that are there, in the order of the keys."""
        if self._by_key is None:
            places = self.held()
            places = places[np.argsort(self.keys[places], kind="stable")]
            self._by_key = self.keys[places], places
        known, places = self._by_key
        if not len(known):
            return places
        near = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        found: Places = places[near[known[near] == keys]]
        return found

    def remove(self, keys: KeyArray) -> None:
        """Removes those of the keys that are there."""
        places = self.find(keys)
        if len(places):
            self._is_held[places], self._by_key = False, None

    def add(self, keys: KeyArray, vectors: Halves) -> None:
        """Adds (n, d) vectors. No key may be there, and none twice among them."""
        first, self._n = self._n, self._n + len(keys)
        if self._n > len(self.keys):
            self._make_room(max(self._n, 2 * len(self.keys)))
        added = slice(first, self._n)
        self.keys[added], self.vectors[added], self._is_held[added] = keys, vectors, True
        self.sketches[:, added] = sketched(vectors, self.normals)
        self._by_key = None

    def nearest(self, query: FloatArray, limit: int, among: Places | None = None) -> Hits:
        """The `limit` rows of largest inner product with `query` (d,), of `among` or of all; exact but for half
        precision where all fit into the ranking, approximate otherwise."""
        total = len(self) if among is None else len(among)
        count = max(RANKED, RANKED_PER_HIT * limit, int(RANKED_SHARE * total))
        if total > count:
            places = self._likely(sketched(query[None], self.normals)[:, 0], count, among)
        else:
            places = self.held() if among is None else among
        scores = np.empty(len(places), dtype=np.float32)
        for start in range(0, len(places), RANKED_AT_ONCE):
            some = slice(start, start + RANKED_AT_ONCE)
            scores[some] = products(self.vectors[places[some]], query)
        return best(self.keys[places], scores, limit)

    def _likely(self, sketch: Sketches, count: int, among: Places | None) -> Places:
        """Places of the rows whose sketches differ least from one: more than `count`, with ties."""
        is_whole = among is None or 2 * len(among) > self._n
        apart = differences(self.sketches[:, : self._n] if is_whole else self.sketches[:, among], sketch)
        if among is None:
            apart[~self._is_held[: self._n]] = BITS + 1
        elif is_whole:
            apart = apart[among]
        near = np.flatnonzero(apart <= np.partition(apart, count)[count])
        return near if among is None else among[near]

    def _make_room(self, size: int) -> None:
        more = size - len(self.keys)
        self.keys = np.concatenate([self.keys, np.empty(more, np.int64)])
        self.vectors = np.concatenate([self.vectors, np.empty((more, self.vectors.shape[1]), np.float16)])
        self.sketches = np.concatenate([self.sketches, np.empty((WORDS, more), np.uint64)], axis=1)
        self._is_held = np.concatenate([self._is_held, np.zeros(more, dtype=bool)])
