"""Vectors in memory, found by faiss: those whose signs, after a rotation, differ in fewest bits from the query's are
ranked by their full vectors. A filter takes part before that choice. Where the hits are so far that others as near may
differ in more bits, those are ranked too. Shapes: n vectors, d dimensions.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from coe.retrieval.index.space import Hits, KeyArray, best
from coe.router.types import BoolArray, FloatArray

BITS = 512  # 64 bytes, which faiss compares in a third of the time of 48
RANKED, RANKED_SHARE = 1_000, 1 / 200
"""Vectors that are ranked after their signs: the larger of a number and a share of all."""
DEVIATIONS = 1.5  # above the bits in which the last hit is expected to differ, until which others are ranked too
AT_ONCE = 1 << 14  # vectors in single precision
SPARSE = 64  # keys between the first and the last, for each that is there

Halves = NDArray[np.float16]

faiss.omp_set_num_threads(1)  # a search has a thread, and its neighbours have theirs


class HeldVectors:
    """Vectors by key. Not for several threads at once."""

    def __init__(self, dim: int) -> None:
        self.keys: KeyArray = np.empty(0, np.int64)
        self._dim = dim
        self._exact = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._signs = faiss.IndexLSH(dim, BITS, True)
        self._filter: tuple[KeyArray, BoolArray] | None = None  # the last one, and what it leaves

    @property
    def size_bytes(self) -> int:
        return len(self.keys) * (2 * self._dim + BITS // 8 + self.keys.itemsize)

    def add(self, keys: KeyArray, vectors: Halves) -> None:
        """Adds (n, d) vectors in place of those that are there by the same keys, none of which may come twice."""
        self.remove(is_among(self.keys, keys))
        for start in range(0, len(keys), AT_ONCE):
            some = vectors[start : start + AT_ONCE].astype(np.float32)
            self._exact.add(some)
            self._signs.add(some)
        self.keys, self._filter = np.concatenate([self.keys, keys]), None

    def remove(self, is_gone: BoolArray) -> None:
        """Removes the vectors at places (n,)."""
        if is_gone.any():
            for index in (self._exact, self._signs):
                index.remove_ids(bitmap(is_gone))
            self.keys, self._filter = self.keys[~is_gone], None

    def nearest(self, query: FloatArray, limit: int, among: KeyArray | None = None) -> Hits:
        """The `limit` vectors of largest inner product with `query` (d,), exact where no more are wanted than are
        ranked. All are taken for unit vectors."""
        total, batch = len(self.keys), np.ascontiguousarray(query[None], dtype=np.float32)
        is_wanted = np.ones(total, dtype=bool) if among is None else self._left_by(among)
        wanted = int(np.count_nonzero(is_wanted))
        limit = min(limit, wanted)
        if limit <= 0:
            return Hits(self.keys[:0], np.empty(0, np.float32))
        ranked = max(RANKED, int(RANKED_SHARE * total), limit)
        if wanted <= 2 * ranked:
            return self._ranked(batch, limit, is_wanted)
        apart = self._apart(batch)
        if wanted < total:
            apart[~is_wanted] = BITS + 1
        reach = np.partition(apart, ranked)[ranked]
        hits = self._ranked(batch, limit, apart <= reach)
        further = bits_apart(float(hits.scores[-1]))
        return hits if further <= reach else self._ranked(batch, limit, apart <= further)

    def _left_by(self, among: KeyArray) -> BoolArray:
        if self._filter is None or self._filter[0] is not among:
            self._filter = among, is_among(self.keys, among)
        return self._filter[1]

    def _apart(self, batch: FloatArray) -> NDArray[np.int32]:
        """In how many signs each vector differs from the query."""
        sketch, apart = self._signs.sa_encode(batch), np.empty(len(self.keys), np.int32)
        faiss.hammings(
            faiss.swig_ptr(sketch), self._signs.codes.data(), 1, len(apart), sketch.shape[1], faiss.swig_ptr(apart)
        )
        return apart

    def _ranked(self, batch: FloatArray, limit: int, is_wanted: BoolArray) -> Hits:
        scores, places = self._exact.search(batch, limit, params=faiss.SearchParameters(sel=bitmap(is_wanted)))
        return best(self.keys[places[0]], scores[0], limit)


def bits_apart(score: float) -> float:
    """Bits in which unit vectors of that inner product may differ: as many as are expected, and `DEVIATIONS`."""
    share = np.arccos(np.clip(score, -1.0, 1.0)) / np.pi
    return min(BITS, float(BITS * share + DEVIATIONS * np.sqrt(BITS * share * (1.0 - share))))


def is_among(keys: KeyArray, among: KeyArray) -> BoolArray:
    """Of each of the keys (n,) whether it is one of `among`: by a table, which takes a tenth of `np.isin`'s time."""
    if not len(keys):
        return np.zeros(0, dtype=bool)
    lowest, highest = int(keys.min()), int(keys.max())
    if highest - lowest > SPARSE * len(keys):
        return np.isin(keys, among)
    table = np.zeros(highest - lowest + 1, dtype=bool)
    table[among[(among >= lowest) & (among <= highest)] - lowest] = True
    return np.asarray(table[keys - lowest])


def bitmap(mask: BoolArray) -> faiss.IDSelectorBitmap:
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
