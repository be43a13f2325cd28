"""Indexes in Postgres with the pgvector extension, for any number of gateways: an HNSW table per index.

Recall depends on `hnsw.ef_search`, which is set per search; hits that fail a filter are always dropped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from coe.base.errors import ConfigError, StoreError, VectorSpaceError
from coe.base.extras import require_installed
from coe.decision_log.sql_engine import FORMS, checked_url, close_engine, in_parts, postgres_engine, translated_errors
from coe.retrieval.types import Hits, KeyArray, VectorSpace, is_among, require_same_space, require_vectors
from coe.router.types import FloatArray

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

EF_SEARCH = 200
MAX_EF_SEARCH = 1000  # pgvector's own bound
DEVIATIONS = 2  # by which more are asked for than a filter that knows nothing of the query is expected to leave out
FEW = 2000  # keys that a filter leaves, whose vectors are compared one by one in less time than a wider search takes
MAX_DIM = 2000  # of its HNSW
SCHEMA_LOCK = 0x636F6576  # "coev", for Postgres's advisory locks
INSERT_ROWS = 500
UNDEFINED_TABLE = "42P01"

LIST_OF_INDEXES = """
CREATE TABLE IF NOT EXISTS coe_indexes (
    name text PRIMARY KEY, fingerprint text NOT NULL, dim integer NOT NULL, table_name text NOT NULL
)
"""

SIZE = """
SELECT CASE WHEN reltuples > 0 THEN reltuples * pg_relation_size(oid) / relpages / current_setting('block_size')::int
    ELSE (SELECT count(*) FROM {table}) END
FROM pg_class WHERE oid = CAST(:table AS regclass)
"""
"""A query for the number of rows: by the density at Postgres' last analysis, or counted if there was none."""


class PgvectorIndexes:
    """The indexes of one document space in one database.

    Args:
        prefix: distinguishes this space's indexes from others.

    Raises:
        ConfigError: no Postgres URL, or more dimensions than pgvector's index supports.
        MissingExtraError: the driver is not installed.
        StoreError: the database cannot be reached, or has no pgvector.
    """

    def __init__(self, url: str, prefix: str, space: VectorSpace) -> None:
        if space.dim > MAX_DIM:
            raise ConfigError(f"pgvector indexes at most {MAX_DIM} dimensions; the encoder has {space.dim}")
        self._prefix, self._space = prefix, space
        self._open: dict[str, PgvectorIndex] = {}
        self._engine = open_postgres(url)
        with transaction(self._engine, "find pgvector") as connection:
            hold_schema(connection)
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
            connection.execute(text(LIST_OF_INDEXES))

    def open(self, name: str) -> PgvectorIndex:
        """Return the index of that name; may raise VectorSpaceError or StoreError."""
        if name in self._open:
            return self._open[name]
        full = f"{self._prefix}/{name}"
        table = f"coe_vectors_{hashlib.sha256(full.encode()).hexdigest()[:24]}"
        query = text("SELECT fingerprint, dim FROM coe_indexes WHERE name = :name")
        with transaction(self._engine, "open an index") as connection:
            row = connection.execute(query, {"name": full}).one_or_none()
            if row is None:
                hold_schema(connection)
                make_table(connection, full, table, self._space)
                row = connection.execute(query, {"name": full}).one()
        require_same_space(name, VectorSpace(fingerprint=row.fingerprint, dim=row.dim), self._space)
        index = self._open[name] = PgvectorIndex(self._engine, name, table, self._space)
        return index

    def drop(self, name: str) -> None:
        self._open.pop(name, None)
        full = f"{self._prefix}/{name}"
        with transaction(self._engine, "delete an index") as connection:
            gone = text("DELETE FROM coe_indexes WHERE name = :name RETURNING table_name")
            table = connection.execute(gone, {"name": full}).scalar_one_or_none()
            if table is not None:
                connection.execute(text(f"DROP TABLE IF EXISTS {checked(table)}"))

    def close(self) -> None:
        close_engine(self._engine)


class PgvectorIndex:
    """One index: a table of keys and vectors."""

    def __init__(self, engine: Engine, name: str, table: str, space: VectorSpace) -> None:
        self._engine, self._name, self._table, self.space = engine, name, checked(table), space
        self._rows = 0

    def __len__(self) -> int:
        with self._transaction("count vectors") as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {self._table}")).scalar_one())

    def add(self, keys: KeyArray, vectors: FloatArray) -> None:
        """Add vectors as `VectorIndex.add` does; a repeated key keeps its last vector."""
        require_vectors(self.space, vectors)
        rows = {key: literal(vector) for key, vector in zip(keys.tolist(), vectors, strict=True)}
        statement = text(
            f"INSERT INTO {self._table} (key, v) SELECT * FROM unnest(CAST(:keys AS bigint[]), "
            "CAST(CAST(:vectors AS text[]) AS vector[])) ON CONFLICT (key) DO UPDATE SET v = excluded.v"
        )
        # Two writers that lock the same rows in different order would wait for each other.
        ordered = sorted(rows)
        with self._transaction("add vectors") as connection:
            for some in in_parts(ordered, INSERT_ROWS):
                connection.execute(statement, {"keys": some, "vectors": [rows[key] for key in some]})

    def remove(self, keys: KeyArray) -> int:
        with self._transaction("remove vectors") as connection:
            gone = text(f"DELETE FROM {self._table} WHERE key = ANY(:keys)")
            return connection.execute(gone, {"keys": np.unique(keys).tolist()}).rowcount

    def search(self, query: FloatArray, limit: int, among: KeyArray | None = None, enough: int | None = None) -> Hits:
        """Search as `VectorIndex.search` does: approximately, or exactly if a filter keeps few vectors or hits.

        The graph ignores filters. So the search asks for more neighbours and drops those that fail the filter. It
        compares all vectors that pass instead, if that widens the search and the filter keeps few.
        """
        require_vectors(self.space, query[None])
        limit = max(0, limit)
        if among is None:
            return self._nearest(query, limit)
        enough = limit if enough is None else min(enough, limit)
        count = self._asked(enough, limit, len(among))
        if count <= EF_SEARCH or len(among) > FEW:
            hits = self._nearest(query, count)
            passed = np.flatnonzero(is_among(hits.keys, among))[:limit]
            if len(passed) >= enough:
                return Hits(hits.keys[passed], hits.scores[passed])
            self._rows = 0  # it may have grown since
        # Written out as a table of its own, so that the graph is not asked.
        source = f"(SELECT key, v FROM {self._table} WHERE key = ANY(:among) OFFSET 0) AS wanted"
        return self._nearest(query, limit, source, {"among": among.tolist()})

    def _asked(self, enough: int, limit: int, left: int) -> int:
        """Return how many neighbours to ask for, so that `enough` pass a filter that keeps `left` vectors."""
        if self._rows < left:  # the index grows
            with self._transaction("estimate the size") as connection:
                rows = connection.execute(text(SIZE.format(table=self._table)), {"table": self._table}).scalar_one()
            self._rows = max(int(rows), left)
        asked = [(each + DEVIATIONS * np.sqrt(each)) * self._rows / max(left, 1) for each in (enough, limit)]
        return min(MAX_EF_SEARCH, int(max(asked[0], min(EF_SEARCH, asked[1]))))

    def _nearest(
        self, query: FloatArray, limit: int, source: str | None = None, values: Mapping[str, object] | None = None
    ) -> Hits:
        """Return the nearest vectors of a table, by default among all."""
        statement = text(
            f"SELECT key, -(v <#> CAST(:query AS vector)) AS score FROM {source or self._table} "
            "ORDER BY v <#> CAST(:query AS vector) LIMIT :limit"
        )
        with self._transaction("search vectors") as connection:
            width = min(MAX_EF_SEARCH, max(EF_SEARCH, limit))
            connection.execute(text(f"SET LOCAL hnsw.ef_search = {width}"))
            rows = connection.execute(statement, {"query": literal(query), "limit": limit, **(values or {})}).all()
        keys = np.array([row.key for row in rows], dtype=np.int64)
        return Hits(keys, np.array([row.score for row in rows], dtype=np.float32))

    @contextmanager
    def _transaction(self, action: str) -> Iterator[Connection]:
        with transaction(self._engine, f"{action} of index {self._name}") as connection:
            yield connection


def open_postgres(url: str) -> Engine:
    """Return a connection pool; may raise ConfigError or MissingExtraError."""
    parsed = checked_url(url, "retrieval.pgvector_url_env", {"postgresql": FORMS["postgresql"]})
    require_installed("retrieval.pgvector_url_env", "psycopg")
    return postgres_engine(parsed)


@contextmanager
def transaction(engine: Engine, action: str) -> Iterator[Connection]:
    """Run a block in a transaction; StoreErrors have no values, and a missing table is a deleted index."""
    with translated_errors(f"{action} in", "Postgres"):
        try:
            with engine.begin() as connection:
                yield connection
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) == UNDEFINED_TABLE:
                raise StoreError(f"cannot {action}: it was deleted") from error
            raise


def hold_schema(connection: Connection) -> None:
    """Lock the creation of tables until the transaction ends: several gateways may start at once."""
    connection.execute(text(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))


def make_table(connection: Connection, name: str, table: str, space: VectorSpace) -> None:
    connection.execute(
        text(f"CREATE TABLE IF NOT EXISTS {checked(table)} (key bigint PRIMARY KEY, v vector({space.dim}))")
    )
    connection.execute(
        text(f"CREATE INDEX IF NOT EXISTS {checked(table)}_v ON {checked(table)} USING hnsw (v vector_ip_ops)")
    )
    connection.execute(
        text("INSERT INTO coe_indexes VALUES (:name, :fingerprint, :dim, :table) ON CONFLICT DO NOTHING"),
        {"name": name, "fingerprint": space.fingerprint, "dim": space.dim, "table": table},
    )


def checked(table: str) -> str:
    """Check the name of a table, which is put into statements unescaped."""
    if re.fullmatch(r"coe_vectors_[0-9a-f]{24}", table) is None:
        raise VectorSpaceError(f"'{table[:40]}' is not the name of an index's table")
    return table


def literal(vector: FloatArray) -> str:
    """Return a vector in pgvector's notation."""
    return "[" + ",".join(map(repr, vector.astype(np.float32).tolist())) + "]"
