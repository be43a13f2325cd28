"""The tables of files and vector stores. `owner` is the id of the key that made a row, '' without keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from decision_log.tables import METADATA, fields_of, table
from retrieval.stores.store_records import StoredFile

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

FILES = table(
    "retrieval_files",
    fields_of(StoredFile),
    Index("retrieval_files_owner", "owner", "created_at"),
    keys=("file_id",),
)

FILE_PARTS = table(
    "retrieval_file_parts", {"file_id": str, "number": int, "content": bytes}, keys=("file_id", "number")
)
"""Up to a mebibyte of a file, so that no process must hold all of it. Numbers count from 0."""

STORES = table(
    "vector_stores",
    {
        "store_id": str,
        "owner": str,
        "name": str,
        "description": str | None,
        "metadata_json": str,
        "created_at": float,
        "last_active_at": float,
        "expires_days": int | None,
        "space": str,
    },
    Index("vector_stores_owner", "owner", "created_at"),
    keys=("store_id",),
)
"""`space` is the fingerprint of the base encoder that its documents went through."""

STORE_FILES = table(
    "vector_store_files",
    {
        "store_id": str,
        "file_id": str,
        "status": str,
        "error_code": str | None,
        "error_message": str | None,
        "attributes_json": str,
        "strategy_json": str,
        "batch_id": str | None,
        "usage_bytes": int,
        "created_at": float,
        "claimed_until": float | None,
        "attempts": int,
    },
    Index("vector_store_files_status", "status"),
    Index("vector_store_files_file", "file_id"),
    keys=("store_id", "file_id"),
    defaults={"usage_bytes": 0, "attempts": 0},
)
"""A file in a store. `claimed_until` is set while a gateway works on it, `attempts` counts how often one began to;
`usage_bytes` is set once it is done."""

BATCHES = table(
    "vector_store_batches",
    {"batch_id": str, "store_id": str, "created_at": float},
    Index("vector_store_batches_store", "store_id"),
    keys=("batch_id",),
)
"""A batch of files. It outlives them: a file that is attached again, or taken out, is no longer in it."""

CHUNKS = Table(
    "retrieval_chunks",
    METADATA,
    Column("key", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("store_id", "file_id")),
    Column("position", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Index("retrieval_chunks_file", "store_id", "file_id", "position"),
    sqlite_autoincrement=True,
)
"""A piece of a document; its key names its vectors. Keys are never given twice: an index may lag behind."""

TABLES = [FILES, FILE_PARTS, STORES, STORE_FILES, BATCHES, CHUNKS]


def is_file(store_id: str, file_id: str) -> tuple[ColumnElement[bool], ...]:
    """Conditions on a file of a store."""
    return STORE_FILES.c.store_id == store_id, STORE_FILES.c.file_id == file_id
