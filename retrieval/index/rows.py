"""Vectors that are found by the signs of random projections and then ranked by themselves.

A sketch has one bit per random hyperplane: the side on which the vector lies. The share of bits in which two sketches
differ grows with the angle between the vectors (Charikar 2002), so the rows whose sketches differ least from a query's
hold its nearest; those are ranked by their inner products. Where the last hit turns out to be so far that others as
near may differ in more bits, those are ranked, too. Shapes: n rows, d dimensions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.index.space import Hits, KeyArray, best
from router.types import BoolArray, FloatArray, IntArray

BITS = 384
WORDS = BITS // 64
RANKED, RANKED_SHARE, RANKED_PER_HIT = 500, 1 / 500, 50
"""Rows that are ranked by themselves: the largest of a number, a share of all, and so many for each hit
(benchmarks/vector_index.py)."""

DEVIATIONS = 2.0
MOST, MOST_FILTERED, MOST_SHARE = 1_500, 6_000, 1 / 80
"""Rows are ranked up to so many standard deviations above the bits in which the last hit is expected to differ, until
they are so many, or this share of all. A filter leaves neighbours that are farther, and takes longer than ranking."""

SCANNED_AT_ONCE, RANKED_AT_ONCE = 1 << 15, 512  # rows that stay in the processor's cache

Places = IntArray
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
    """Number of bits (n,) in which each of (`WORDS`, n) differs from one (`WORDS`,)."""
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


def bits_apart(product: float) -> int:
    """Number of bits in which the sketches of two unit vectors of that inner product may differ, chance included."""
    share = float(np.arccos(np.clip(product, -1.0, 1.0))) / np.pi
    return min(BITS, int(BITS * share + DEVIATIONS * np.sqrt(BITS * share * (1.0 - share))))


def ascending(keys: KeyArray) -> KeyArray:
    """The keys in order and each once; many take less time than by `np.unique`, least if they are so already."""
    if np.all(keys[1:] > keys[:-1]):
        return keys
    ordered: KeyArray = np.sort(keys)
    is_first = np.concatenate([[True], ordered[1:] > ordered[:-1]])
    return np.asarray(ordered[is_first])


def chosen(mask: BoolArray, among: Places | None) -> Places:
    """Places of the rows of a mask, which is over all rows or over `among`."""
    places: Places = np.flatnonzero(mask)
    return places if among is None else among[places]


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
        """Places of those of the keys (k,) that are there, by ascending key and each once."""
        keys = ascending(keys)
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
        precision where there are no more than are ranked, approximate otherwise. All are taken for unit vectors."""
        total = len(self) if among is None else len(among)
        count = max(RANKED, RANKED_PER_HIT * limit, int(RANKED_SHARE * total))
        if total <= count:
            places = self.held() if among is None else among
            return best(self.keys[places], self._scores(places, query), limit)
        apart = self._apart(sketched(query[None], self.normals)[:, 0], among)
        within = np.cumsum(np.bincount(apart))  # as many rows as differ in at most 0, 1, ... bits
        reach = int(np.searchsorted(within, count, side="right"))
        places = chosen(apart <= reach, among)
        scores = self._scores(places, query)
        most = max(MOST if among is None else MOST_FILTERED, MOST_SHARE * total)
        further = min(
            int(np.searchsorted(within, most, side="right")) - 1, bits_apart(np.partition(scores, -limit)[-limit])
        )
        if further > reach:
            more = chosen((apart > reach) & (apart <= further), among)
            places, scores = np.concatenate([places, more]), np.concatenate([scores, self._scores(more, query)])
        return best(self.keys[places], scores, limit)

    def _scores(self, places: Places, query: FloatArray) -> FloatArray:
        """Inner products (k,) of rows with a query."""
        scores = np.empty(len(places), dtype=np.float32)
        for start in range(0, len(places), RANKED_AT_ONCE):
            some = slice(start, start + RANKED_AT_ONCE)
            scores[some] = products(self.vectors[places[some]], query)
        return scores

    def _apart(self, sketch: Sketches, among: Places | None) -> NDArray[np.uint16]:
        """Number of bits in which each row of `among`, or of all, differs from a sketch; more than all if removed."""
        is_whole = among is None or 2 * len(among) > self._n
        apart = differences(self.sketches[:, : self._n] if is_whole else self.sketches[:, among], sketch)
        if among is None:
            apart[~self._is_held[: self._n]] = BITS + 1
        return apart[among] if among is not None and is_whole else apart

    def _make_room(self, size: int) -> None:
        more = size - len(self.keys)
        self.keys = np.concatenate([self.keys, np.empty(more, np.int64)])
        self.vectors = np.concatenate([self.vectors, np.empty((more, self.vectors.shape[1]), np.float16)])
        self.sketches = np.concatenate([self.sketches, np.empty((WORDS, more), np.uint64)], axis=1)
        self._is_held = np.concatenate([self._is_held, np.zeros(more, dtype=bool)])
