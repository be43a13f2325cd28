"""Indexes with vectors in SQL that are searched in memory; each process follows the changes of others.

In memory, faiss finds the vectors whose signs, after a rotation, differ from the query's in the fewest bits. It ranks
these by their full values. A filter applies before that choice. If the hits are so far away that equally near vectors
may differ in more bits, those are ranked too. Shapes: n vectors, d dimensions.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, select, update
from sqlmodel import col

from coe.base.errors import StoreError
from coe.decision_log.database import Database
from coe.decision_log.sql_engine import in_parts
from coe.decision_log.tables.files import IndexRow, VectorRow
from coe.retrieval.types import Hits, KeyArray, VectorSpace, best, is_among, require_same_space, require_vectors
from coe.router.types import BoolArray, FloatArray

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

READ_AT_ONCE, NAMED_AT_ONCE = 4_096, 500  # rows, and keys in a statement
BITS = 512  # 64 bytes, which faiss compares in a third of the time of 48
RANKED, RANKED_SHARE = 1_000, 1 / 200
"""Vectors that are ranked after the comparison of signs: the larger of a number and a share of all."""
DEVIATIONS = 1.5  # above the bits in which the last hit is expected to differ, until which others are ranked too
AT_ONCE = 1 << 14  # vectors in single precision

Halves = NDArray[np.float16]

faiss.omp_set_num_threads(1)  # a search has a thread, and its neighbours have theirs


class Filter(NamedTuple):
    """The keys that a filter keeps, a mask of these vectors (n,), their number, and bits (n,) that put others last."""

    among: KeyArray
    is_wanted: BoolArray
    wanted: int
    penalty: NDArray[np.int32]


class HeldVectors:
    """Vectors in memory by key, for one thread at a time."""

    def __init__(self, dim: int) -> None:
        self.keys: KeyArray = np.empty(0, np.int64)
        self._dim = dim
        self._exact = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._signs = faiss.IndexLSH(dim, BITS, True)
        self._filter: Filter | None = None  # the last one

    @property
    def size_bytes(self) -> int:
        return len(self.keys) * (2 * self._dim + BITS // 8 + self.keys.itemsize)

    def add(self, keys: KeyArray, vectors: Halves) -> None:
        """Add vectors (n, d) under distinct keys, replacing those that exist."""
        self.remove(is_among(self.keys, keys))
        for start in range(0, len(keys), AT_ONCE):
            some = vectors[start : start + AT_ONCE].astype(np.float32)
            self._exact.add(some)
            self._signs.add(some)
        self.keys, self._filter = np.concatenate([self.keys, keys]), None

    def remove(self, is_gone: BoolArray) -> None:
        """Remove the vectors at places (n,)."""
        if is_gone.any():
            for index in (self._exact, self._signs):
                index.remove_ids(bitmap(is_gone))
            self.keys, self._filter = self.keys[~is_gone], None

    def nearest(self, query: FloatArray, limit: int, among: KeyArray | None = None) -> Hits:
        """Return the `limit` unit vectors nearest to `query` (d,), exactly if few pass the filter (see `RANKED`)."""
        total, batch = len(self.keys), np.ascontiguousarray(query[None], dtype=np.float32)
        left = None if among is None else self._left_by(among)
        wanted = total if left is None else left.wanted
        limit = min(limit, wanted)
        if limit <= 0:
            return Hits(self.keys[:0], np.empty(0, np.float32))
        ranked = max(RANKED, int(RANKED_SHARE * total), limit)
        if wanted <= 2 * ranked:
            return self._ranked(batch, limit, np.ones(total, dtype=bool) if left is None else left.is_wanted)
        apart = self._apart(batch)
        if left is not None:
            np.maximum(apart, left.penalty, out=apart)
        reach = np.partition(apart, ranked)[ranked]
        hits = self._ranked(batch, limit, apart <= reach)
        further = bits_apart(float(hits.scores[-1]))
        return hits if further <= reach else self._ranked(batch, limit, apart <= further)

    def _left_by(self, among: KeyArray) -> Filter:
        if self._filter is None or self._filter.among is not among:
            is_wanted = is_among(self.keys, among)
            penalty = np.where(is_wanted, 0, BITS + 1).astype(np.int32)
            self._filter = Filter(among, is_wanted, int(np.count_nonzero(is_wanted)), penalty)
        return self._filter

    def _apart(self, batch: FloatArray) -> NDArray[np.int32]:
        """Return the number of signs in which each vector differs from the query."""
        sketch, apart = self._signs.sa_encode(batch), np.empty(len(self.keys), np.int32)
        faiss.hammings(
            faiss.swig_ptr(sketch), self._signs.codes.data(), 1, len(apart), sketch.shape[1], faiss.swig_ptr(apart)
        )
        return apart

    def _ranked(self, batch: FloatArray, limit: int, is_wanted: BoolArray) -> Hits:
        scores, places = self._exact.search(batch, limit, params=faiss.SearchParameters(sel=bitmap(is_wanted)))
        return best(self.keys[places[0]], scores[0], limit)


def bits_apart(score: float) -> float:
    """Return the bits in which unit vectors of that inner product may differ: the expectation and `DEVIATIONS`."""
    share = np.arccos(np.clip(score, -1.0, 1.0)) / np.pi
    return min(BITS, float(BITS * share + DEVIATIONS * np.sqrt(BITS * share * (1.0 - share))))


def bitmap(mask: BoolArray) -> faiss.IDSelectorBitmap:
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


class LocalIndexes:
    """The indexes of one document space; the last searched ones stay in memory.

    Args:
        prefix: distinguishes this space's indexes from others.
        max_bytes: bytes of vectors in memory, besides the current index.
    """

    def __init__(self, database: Database, prefix: str, space: VectorSpace, max_bytes: int) -> None:
        self._database, self._prefix, self._space, self._max_bytes = database, prefix, space, max_bytes
        self._open: dict[str, LocalIndex] = {}  # the one that was asked for last is the last
        self._lock = threading.Lock()

    def open(self, name: str) -> LocalIndex:
        """Return the index of that name; may raise VectorSpaceError or StoreError."""
        with self._lock:
            index = self._open.pop(name, None) or self._find(name)
            self._open[name] = index
            held = sum(each.size_bytes for each in self._open.values())
            for each in list(self._open)[:-1]:
                if held <= self._max_bytes:
                    break
                held -= self._open.pop(each).size_bytes
            return index

    def drop(self, name: str) -> None:
        with self._lock, self._database.transaction("delete an index") as connection:
            self._open.pop(name, None)
            gone = delete(IndexRow).where(col(IndexRow.name) == self._full(name)).returning(col(IndexRow.index_id))
            for index_id in connection.execute(gone).scalars().all():
                connection.execute(delete(VectorRow).where(col(VectorRow.index_id) == index_id))

    def close(self) -> None:
        self._open.clear()

    def _full(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _find(self, name: str) -> LocalIndex:
        values = {"name": self._full(name), **self._space.model_dump(), "version": 0, "removed": 0, "vectors": 0}
        with self._database.transaction("open an index") as connection:
            connection.execute(self._database.insert(IndexRow).values(values).on_conflict_do_nothing())
            row = connection.execute(select(IndexRow).where(col(IndexRow.name) == values["name"])).one()
        require_same_space(name, VectorSpace(fingerprint=row.fingerprint, dim=row.dim), self._space)
        return LocalIndex(self._database, row.index_id, name, self._space)


class LocalIndex:
    """One index.

    A writer changes the index's row before its vectors, so that writers wait for each other and versions follow
    commits.
    """

    def __init__(self, database: Database, index_id: int, name: str, space: VectorSpace) -> None:
        self._database, self._name, self.space = database, name, space
        self._is_it, self._is_its = col(IndexRow.index_id) == index_id, col(VectorRow.index_id) == index_id
        self._index_id = index_id
        self._held, self._version = HeldVectors(space.dim), 0
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Bytes of the vectors in memory."""
        return self._held.size_bytes

    def __len__(self) -> int:
        with self._database.transaction("count vectors") as connection:
            return int(connection.execute(select(col(IndexRow.vectors)).where(self._is_it)).scalar_one_or_none() or 0)

    def add(self, keys: KeyArray, vectors: FloatArray) -> None:
        """Add vectors as `VectorIndex.add` does; a repeated key keeps its last vector."""
        require_vectors(self.space, vectors)
        rows = dict(zip(keys.tolist(), vectors.astype("<f2"), strict=True))
        if not rows:
            return
        insert = self._database.insert(VectorRow)
        changed = {name: insert.excluded[name] for name in ("version", "vector")}
        insert = insert.on_conflict_do_update(index_elements=["key", "index_id"], set_=changed)
        with self._database.transaction("add vectors") as connection:
            named = {"index_id": self._index_id, "version": self._next_version(connection)}
            connection.execute(insert, [{"key": key, "vector": rows[key].tobytes(), **named} for key in sorted(rows)])
            self._count(connection)

    def remove(self, keys: KeyArray) -> int:
        count, gone = 0, np.unique(keys).tolist()
        with self._database.transaction("remove vectors") as connection:
            version = self._next_version(connection)
            for some in in_parts(gone, NAMED_AT_ONCE):
                count += connection.execute(
                    delete(VectorRow).where(self._is_its, col(VectorRow.key).in_(some))
                ).rowcount
            connection.execute(update(IndexRow).where(self._is_it).values(removed=version))
            self._count(connection)
        return count

    def search(self, query: FloatArray, limit: int, among: KeyArray | None = None, enough: int | None = None) -> Hits:
        """Search as `VectorIndex.search` does: exactly among few vectors, approximately among many."""
        require_vectors(self.space, query[None])
        with self._lock:
            self._follow()
            return self._held.nearest(query, limit, among)

    def _next_version(self, connection: Connection) -> int:
        counted = update(IndexRow).where(self._is_it).values(version=col(IndexRow.version) + 1)
        version = connection.execute(counted.returning(col(IndexRow.version))).scalar_one_or_none()
        if version is None:
            raise StoreError(f"cannot change index {self._name}: it was deleted")
        return int(version)

    def _count(self, connection: Connection) -> None:
        count = select(func.count()).where(self._is_its).scalar_subquery()
        connection.execute(update(IndexRow).where(self._is_it).values(vectors=count))

    def _follow(self) -> None:
        """Read changes since the version in memory; commits in between are read again by the next search."""
        with self._database.transaction("read vectors") as connection:
            row = connection.execute(select(IndexRow).where(self._is_it)).one_or_none()
            if row is None:
                raise StoreError(f"cannot search index {self._name}: it was deleted")
            if row.version == self._version:
                return
            if row.removed > self._version > 0:
                there = connection.execute(select(col(VectorRow.key)).where(self._is_its)).scalars().all()
                self._held.remove(~np.isin(self._held.keys, np.array(there, dtype=np.int64)))
            columns = select(col(VectorRow.key), col(VectorRow.vector))
            newer = columns.where(self._is_its, col(VectorRow.version) > self._version)
            rows = connection.execution_options(stream_results=True).execute(newer)
            for some in rows.partitions(READ_AT_ONCE):
                self._take_in(some)
        self._version = row.version

    def _take_in(self, rows: Sequence[tuple[int, bytes]]) -> None:
        keys = np.array([row[0] for row in rows], dtype=np.int64)
        vectors = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f2").reshape(len(keys), self.space.dim)
        self._held.add(keys, vectors)
