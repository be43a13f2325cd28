"""The tables of files and vector stores. `owner` is the id of the key that made a row, '' without keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, Table, Text, delete, select

from coe.decision_log.tables import METADATA, number, real, text
from coe.retrieval.index.vector_rows import INDEXES, VECTORS

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

FILES = Table(
    "retrieval_files",
    METADATA,
    text("file_id", primary_key=True),
    text("owner"),
    text("filename"),
    text("purpose"),
    number("size_bytes"),
    real("created_at"),
    Index("retrieval_files_owner", "owner", "created_at"),
)
"""Uploaded files."""

FILE_PARTS = Table(
    "retrieval_file_parts",
    METADATA,
    text("file_id", primary_key=True),
    number("number", primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
"""Up to a mebibyte of a file, so that no process must hold all of it. Numbers count from 0."""

STORES = Table(
    "vector_stores",
    METADATA,
    text("store_id", primary_key=True),
    text("owner"),
    text("name"),
    Column("description", Text),
    text("metadata_json"),
    real("created_at"),
    real("last_active_at"),
    Column("expires_days", Integer),
    text("space"),
    number("version"),
    Index("vector_stores_owner", "owner", "created_at"),
)
"""Vector stores. `space` is the fingerprint of the base encoder that the documents went through; `version` counts what
changes which chunks a filter leaves."""

STORE_FILES = Table(
    "vector_store_files",
    METADATA,
    text("store_id", primary_key=True),
    text("file_id", primary_key=True),
    text("status"),
    Column("error_code", Text),
    Column("error_message", Text),
    text("attributes_json"),
    text("strategy_json"),
    Column("batch_id", Text),
    number("usage_bytes"),
    real("created_at"),
    Column("claimed_until", Float),
    number("attempts"),
    Index("vector_store_files_status", "status"),
    Index("vector_store_files_file", "file_id"),
)
"""Files in a store. `claimed_until` is set while a gateway works on one, `attempts` counts how often one began to;
`usage_bytes` is set once it is done."""

BATCHES = Table(
    "vector_store_batches",
    METADATA,
    text("batch_id", primary_key=True),
    text("store_id"),
    real("created_at"),
    Index("vector_store_batches_store", "store_id"),
)
"""Batches of files. A file that is attached again, or taken out, is no longer in its batch, which stays."""

CHUNKS = Table(
    "retrieval_chunks",
    METADATA,
    Column("key", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    text("store_id"),
    text("file_id"),
    number("position"),
    text("text"),
    Index("retrieval_chunks_file", "store_id", "file_id", "position"),
    sqlite_autoincrement=True,
)
"""Pieces of documents; the key of one names its vectors. Keys are never given twice: an index may lag behind."""

TABLES = [FILES, FILE_PARTS, STORES, STORE_FILES, BATCHES, CHUNKS, INDEXES, VECTORS]


def is_file(store_id: str, file_id: str) -> tuple[ColumnElement[bool], ...]:
    """Conditions on a file of a store."""
    return STORE_FILES.c.store_id == store_id, STORE_FILES.c.file_id == file_id


def delete_chunks(connection: Connection, *which: ColumnElement[bool]) -> None:
    """Deletes chunks with those of their vectors that are in this database."""
    connection.execute(delete(VECTORS).where(VECTORS.c.key.in_(select(CHUNKS.c.key).where(*which))))
    connection.execute(delete(CHUNKS).where(*which))
