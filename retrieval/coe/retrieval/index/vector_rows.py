"""Indexes and their vectors in SQL, in the database of the chunks that they are of."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table

from coe.decision_log.tables import METADATA, number, text

INDEXES = Table(
    "retrieval_indexes",
    METADATA,
    number("index_id", primary_key=True),
    text("name", unique=True),
    text("fingerprint"),
    number("dim"),
    number("version"),
    number("removed"),
    number("vectors"),
    sqlite_autoincrement=True,
)
"""`version` counts the changes of one, `removed` is that of the last one that took vectors out. Ids are never given
twice, so a process notices that an index was deleted."""

VECTORS = Table(
    "retrieval_vectors",
    METADATA,
    Column("key", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    number("index_id", primary_key=True),
    number("version"),
    Column("vector", LargeBinary, nullable=False),
    Index("retrieval_vectors_version", "index_id", "version", "key"),
)
"""The vectors of chunks, in half precision, little-endian, with the version that added them."""
