"""Chunks of documents in SQL, by the keys that indexes use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, and_, delete, func, insert, select
from sqlalchemy.engine import Connection
from sqlmodel import col

from coe.decision_log.database import Database
from coe.decision_log.sql_engine import in_parts
from coe.decision_log.tables.files import ChunkRow, FileRow, StoreFileRow, VectorRow
from coe.retrieval.stores.store_records import Chunk, FileStatus, pairs_of
from coe.retrieval.types import KeyArray

ID_BATCH = 500
"""Number of ids in one statement, well below the databases' limits on parameters."""


class ChunkTable:
    """The chunks in a database. Methods block, raise StoreError, and are safe in any number of threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def replace(self, store_id: str, file_id: str, texts: Iterable[str]) -> tuple[KeyArray, KeyArray]:
        """Write the chunks of a file in place of those of an earlier attempt; return the new and the old keys."""
        is_its = and_(col(ChunkRow.store_id) == store_id, col(ChunkRow.file_id) == file_id)
        rows = (
            {"store_id": store_id, "file_id": file_id, "position": position, "text": text}
            for position, text in enumerate(texts)
        )
        with self._database.transaction("write chunks") as connection:
            old = connection.execute(select(col(ChunkRow.key)).where(is_its)).scalars().all()
            delete_chunks(connection, is_its)
            while some := list(islice(rows, ID_BATCH)):
                connection.execute(insert(ChunkRow), some)
            new = (
                connection.execute(select(col(ChunkRow.key)).where(is_its).order_by(col(ChunkRow.position)))
                .scalars()
                .all()
            )
        return np.array(new, dtype=np.int64), np.array(old, dtype=np.int64)

    def keys(self, store_id: str, file_ids: Sequence[str]) -> KeyArray:
        """Return the keys of all chunks of some files, ascending."""
        found: list[int] = []
        with self._database.transaction("find chunks") as connection:
            for ids in in_parts(file_ids, ID_BATCH):
                query = select(col(ChunkRow.key)).where(
                    col(ChunkRow.store_id) == store_id, col(ChunkRow.file_id).in_(ids)
                )
                found += connection.execute(query).scalars().all()
        return np.sort(np.array(found, dtype=np.int64))

    def shown(self, store_id: str, keys: Sequence[int]) -> dict[int, Chunk]:
        """Return the chunks by key, without those of files that are not completely read."""
        query = (
            select(ChunkRow, col(FileRow.filename), col(StoreFileRow.attributes_json))
            .select_from(ChunkRow)
            .join(col(ChunkRow.store_file))
            .join(col(StoreFileRow.file))
            .where(col(ChunkRow.store_id) == store_id, col(StoreFileRow.status) == FileStatus.COMPLETED.value)
        )
        found: dict[int, Chunk] = {}
        with self._database.transaction("read chunks") as connection:
            for some in in_parts(keys, ID_BATCH):
                for row in connection.execute(query.where(col(ChunkRow.key).in_(some))):
                    found[row.key] = chunk_of(row)
        return found

    def texts_of_file(self, store_id: str, file_id: str) -> list[str]:
        """Return the chunks of a file in order."""
        query = select(col(ChunkRow.text)).where(col(ChunkRow.store_id) == store_id, col(ChunkRow.file_id) == file_id)
        return [row.text for row in self._database.rows("read chunks", query.order_by(col(ChunkRow.position)))]

    def texts_of(self, keys: Sequence[int]) -> dict[int, str]:
        """Return texts by key, without those of deleted chunks."""
        found: dict[int, str] = {}
        with self._database.transaction("read chunks") as connection:
            for some in in_parts(keys, ID_BATCH):
                query = select(col(ChunkRow.key), col(ChunkRow.text)).where(col(ChunkRow.key).in_(some))
                found |= {row.key: row.text for row in connection.execute(query)}
        return found

    def all_keys(self, store_id: str) -> KeyArray:
        """Return the keys of a store, ascending."""
        query = select(col(ChunkRow.key)).where(col(ChunkRow.store_id) == store_id).order_by(col(ChunkRow.key))
        return np.array([row.key for row in self._database.rows("find chunks", query)], dtype=np.int64)

    def texts(self, store_id: str) -> tuple[KeyArray, list[str]]:
        """Return the keys and texts of a store, by key."""
        query = (
            select(col(ChunkRow.key), col(ChunkRow.text))
            .where(col(ChunkRow.store_id) == store_id)
            .order_by(col(ChunkRow.key))
        )
        rows = self._database.rows("read chunks", query)
        return np.array([row.key for row in rows], dtype=np.int64), [row.text for row in rows]

    def count_read(self, store_id: str) -> int:
        """Return the number of chunks of completely read files."""
        is_read = col(StoreFileRow.status) == FileStatus.COMPLETED.value
        query = select(func.count()).select_from(ChunkRow).join(col(ChunkRow.store_file))
        (row,) = self._database.rows("count chunks", query.where(col(ChunkRow.store_id) == store_id, is_read))
        return int(row[0])

    def stamp(self, store_id: str) -> tuple[int, int]:
        """Return the number of chunks and the largest key, which change with every change of a store's chunks."""
        query = select(func.count(), func.coalesce(func.max(col(ChunkRow.key)), 0)).where(
            col(ChunkRow.store_id) == store_id
        )
        (row,) = self._database.rows("count chunks", query)
        return int(row[0]), int(row[1])


def chunk_of(row: Any) -> Chunk:
    attributes = pairs_of(row.attributes_json, row.file_id)
    return Chunk(row.key, row.file_id, row.position, row.text, row.filename, attributes)


def delete_chunks(connection: Connection, *which: ColumnElement[bool]) -> None:
    """Delete chunks, and their vectors in this database."""
    keys = select(col(ChunkRow.key)).where(*which)
    connection.execute(delete(VectorRow).where(col(VectorRow.key).in_(keys)))
    connection.execute(delete(ChunkRow).where(*which))
