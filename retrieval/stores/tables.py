"""The tables of files and vector stores. `owner` is the id of the key that made a row, '' without keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Float, Index, Integer, LargeBinary, Text, delete, select
from sqlmodel import Field, SQLModel

from retrieval.index.vector_rows import INDEXES, VECTORS

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.engine import Connection


class FileRow(SQLModel, table=True):
    """An uploaded file; its bytes are in `retrieval_file_parts`."""

    __tablename__ = "retrieval_files"
    __table_args__ = (Index("retrieval_files_owner", "owner", "created_at"),)

    file_id: str = Field(primary_key=True, sa_type=Text)
    owner: str = Field(sa_type=Text)
    filename: str = Field(sa_type=Text)
    purpose: str = Field(sa_type=Text)
    size_bytes: int
    created_at: float = Field(sa_type=Float)


class FilePartRow(SQLModel, table=True):
    """Up to a mebibyte of a file, so that no process must hold all of it. Numbers count from 0."""

    __tablename__ = "retrieval_file_parts"

    file_id: str = Field(primary_key=True, sa_type=Text)
    number: int = Field(primary_key=True)
    content: bytes = Field(sa_type=LargeBinary)


class StoreRow(SQLModel, table=True):
    """A vector store. `space` is the fingerprint of the base encoder that its documents went through; `version` counts
    what changes which chunks a filter leaves."""

    __tablename__ = "vector_stores"
    __table_args__ = (Index("vector_stores_owner", "owner", "created_at"),)

    store_id: str = Field(primary_key=True, sa_type=Text)
    owner: str = Field(sa_type=Text)
    name: str = Field(default="", sa_type=Text)
    description: str | None = Field(default=None, sa_type=Text)
    metadata_json: str = Field(default="{}", sa_type=Text)
    created_at: float = Field(sa_type=Float)
    last_active_at: float = Field(sa_type=Float)
    expires_days: int | None = None
    space: str = Field(sa_type=Text)
    version: int = 0


class StoreFileRow(SQLModel, table=True):
    """A file in a store. `claimed_until` is set while a gateway works on it, `attempts` counts how often one began to;
    `usage_bytes` is set once it is done."""

    __tablename__ = "vector_store_files"
    __table_args__ = (Index("vector_store_files_status", "status"), Index("vector_store_files_file", "file_id"))

    store_id: str = Field(primary_key=True, sa_type=Text)
    file_id: str = Field(primary_key=True, sa_type=Text)
    status: str = Field(sa_type=Text)
    error_code: str | None = Field(default=None, sa_type=Text)
    error_message: str | None = Field(default=None, sa_type=Text)
    attributes_json: str = Field(default="{}", sa_type=Text)
    strategy_json: str = Field(sa_type=Text)
    batch_id: str | None = Field(default=None, sa_type=Text)
    usage_bytes: int = 0
    created_at: float = Field(sa_type=Float)
    claimed_until: float | None = Field(default=None, sa_type=Float)
    attempts: int = 0


class BatchRow(SQLModel, table=True):
    """A batch of files. It outlives them: a file that is attached again, or taken out, is no longer in it."""

    __tablename__ = "vector_store_batches"
    __table_args__ = (Index("vector_store_batches_store", "store_id"),)

    batch_id: str = Field(primary_key=True, sa_type=Text)
    store_id: str = Field(sa_type=Text)
    created_at: float = Field(sa_type=Float)


class ChunkRow(SQLModel, table=True):
    """A piece of a document; its key names its vectors. Keys are never given twice: an index may lag behind."""

    __tablename__ = "retrieval_chunks"
    __table_args__ = (
        Index("retrieval_chunks_file", "store_id", "file_id", "position"),
        {"sqlite_autoincrement": True},
    )

    key: int | None = Field(default=None, primary_key=True, sa_type=BigInteger().with_variant(Integer, "sqlite"))
    store_id: str = Field(sa_type=Text)
    file_id: str = Field(sa_type=Text)
    position: int
    text: str = Field(sa_type=Text)


FILES: Table = SQLModel.metadata.tables["retrieval_files"]
FILE_PARTS: Table = SQLModel.metadata.tables["retrieval_file_parts"]
STORES: Table = SQLModel.metadata.tables["vector_stores"]
STORE_FILES: Table = SQLModel.metadata.tables["vector_store_files"]
BATCHES: Table = SQLModel.metadata.tables["vector_store_batches"]
CHUNKS: Table = SQLModel.metadata.tables["retrieval_chunks"]
TABLES = [FILES, FILE_PARTS, STORES, STORE_FILES, BATCHES, CHUNKS, INDEXES, VECTORS]


def is_file(store_id: str, file_id: str) -> tuple[ColumnElement[bool], ...]:
    """Conditions on a file of a store."""
    return STORE_FILES.c.store_id == store_id, STORE_FILES.c.file_id == file_id


def delete_chunks(connection: Connection, *which: ColumnElement[bool]) -> None:
    """Deletes chunks with those of their vectors that are in this database."""
    connection.execute(delete(VECTORS).where(VECTORS.c.key.in_(select(CHUNKS.c.key).where(*which))))
    connection.execute(delete(CHUNKS).where(*which))
