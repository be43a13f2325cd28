"""Tables of files, vector stores and their vectors. `owner` is the id of the key that made a row, '' without keys."""

from sqlalchemy import Index, Text
from sqlmodel import Field, Relationship

from coe.decision_log.tables.base import LargeKey, NumberKey, OptionalString, Row, String, TextKey


class FileRow(Row, table=True):
    """An uploaded file."""

    __tablename__ = "retrieval_files"
    __table_args__ = (Index("retrieval_files_owner", "owner", "created_at"),)

    file_id: TextKey
    owner: String
    filename: String
    purpose: String
    size_bytes: int
    created_at: float


class FilePartRow(Row, table=True):
    """Up to a mebibyte of a file, so that no process must hold all of it. Numbers start at 0."""

    __tablename__ = "retrieval_file_parts"

    file_id: TextKey
    number: NumberKey
    content: bytes


class StoreRow(Row, table=True):
    """A vector store in the space of a base encoder's fingerprint; `version` counts changes that affect filters."""

    __tablename__ = "vector_stores"
    __table_args__ = (Index("vector_stores_owner", "owner", "created_at"),)

    store_id: TextKey
    owner: String
    name: String
    description: OptionalString
    metadata_json: String
    created_at: float
    last_active_at: float
    expires_days: int | None
    space: String
    version: int


class StoreFileRow(Row, table=True):
    """A file in a store.

    `claimed_until` is set while a gateway works on it; `attempts` counts the gateways that started, and `usage_bytes`
    is set at the end.
    """

    __tablename__ = "vector_store_files"
    __table_args__ = (Index("vector_store_files_status", "status"), Index("vector_store_files_file", "file_id"))

    store_id: TextKey
    file_id: TextKey
    status: String
    error_code: OptionalString
    error_message: OptionalString
    attributes_json: String
    strategy_json: String
    batch_id: OptionalString
    usage_bytes: int
    created_at: float
    claimed_until: float | None
    attempts: int

    store: StoreRow = Relationship(
        sa_relationship_kwargs={"primaryjoin": "foreign(StoreFileRow.store_id) == StoreRow.store_id", "viewonly": True}
    )
    file: FileRow = Relationship(
        sa_relationship_kwargs={"primaryjoin": "foreign(StoreFileRow.file_id) == FileRow.file_id", "viewonly": True}
    )


class StoreBatchRow(Row, table=True):
    """A batch of files. A file that is attached again, or detached, leaves its batch, which stays."""

    __tablename__ = "vector_store_batches"
    __table_args__ = (Index("vector_store_batches_store", "store_id"),)

    batch_id: TextKey
    store_id: String
    created_at: float


class ChunkRow(Row, table=True):
    """A piece of a document; its key names its vectors. Keys are never reused, because an index may lag behind."""

    __tablename__ = "retrieval_chunks"
    __table_args__ = (Index("retrieval_chunks_file", "store_id", "file_id", "position"), {"sqlite_autoincrement": True})

    key: LargeKey
    store_id: String
    file_id: String
    position: int
    text: String

    store_file: StoreFileRow = Relationship(
        sa_relationship_kwargs={
            "primaryjoin": "and_(foreign(ChunkRow.store_id) == StoreFileRow.store_id, "
            "foreign(ChunkRow.file_id) == StoreFileRow.file_id)",
            "viewonly": True,
        }
    )


class IndexRow(Row, table=True):
    """An index.

    `version` counts its changes; `removed` is the version of the last change that removed vectors. Ids are never
    reused, so that a process detects a deleted index.
    """

    __tablename__ = "retrieval_indexes"
    __table_args__ = ({"sqlite_autoincrement": True},)

    index_id: NumberKey
    name: str = Field(unique=True, sa_type=Text)
    fingerprint: String
    dim: int
    version: int
    removed: int
    vectors: int


class VectorRow(Row, table=True):
    """The vector of a chunk, in half precision, little-endian, with the version that added it."""

    __tablename__ = "retrieval_vectors"
    __table_args__ = (Index("retrieval_vectors_version", "index_id", "version", "key"),)

    key: LargeKey
    index_id: NumberKey
    version: int
    vector: bytes
