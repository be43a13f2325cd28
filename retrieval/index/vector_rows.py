"""Indexes and their vectors in SQL, in the database of the chunks that they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, Text
from sqlmodel import Field, SQLModel

if TYPE_CHECKING:
    from sqlalchemy import Table


class IndexRow(SQLModel, table=True):
    """An index. `version` counts its changes, `removed` is that of the last one that took vectors out; ids are never
    given twice, so a process notices that an index was deleted."""

    __tablename__ = "retrieval_indexes"
    __table_args__ = ({"sqlite_autoincrement": True},)

    index_id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_type=Text, unique=True)
    fingerprint: str = Field(sa_type=Text)
    dim: int
    version: int = 0
    removed: int = 0
    vectors: int = 0


class VectorRow(SQLModel, table=True):
    """The vector of a chunk, in half precision, little-endian, with the version that added it."""

    __tablename__ = "retrieval_vectors"
    __table_args__ = (Index("retrieval_vectors_version", "index_id", "version", "key"),)

    key: int = Field(primary_key=True, sa_type=BigInteger().with_variant(Integer, "sqlite"))
    index_id: int = Field(primary_key=True)
    version: int
    vector: bytes = Field(sa_type=LargeBinary)


INDEXES: Table = SQLModel.metadata.tables["retrieval_indexes"]
VECTORS: Table = SQLModel.metadata.tables["retrieval_vectors"]
