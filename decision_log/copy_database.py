"""Copies one database into an empty one, for instance SQLite's history to Postgres."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, func, insert, inspect, select, text

from base.errors import StoreError
from base.progress import Progress, silent
from decision_log.sql_engine import check_schema, make_schema, open_engine, translated_errors

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.engine import Connection

ROWS_AT_ONCE = 500


def copy_database(
    source_url: str, target_url: str, tables: Sequence[Table], progress: Progress = silent
) -> dict[str, int]:
    """Copies every row of the tables, in one transaction of the target: an interrupted copy leaves nothing behind.

    Args:
        tables: all tables of the project; those that the source lacks are made empty.

    Returns: number of rows by name of table.

    Raises:
        ConfigError: a URL is not one, or both are the same.
        StoreError: a database cannot be opened or is of another version, or the target has rows.
    """
    source, target = open_engine(source_url, is_reader=True), open_engine(target_url)
    try:
        with translated_errors("open"):
            check_schema(source, tables)
            make_schema(target, tables)
        with translated_errors("copy"), source.connect() as reading, target.begin() as writing:
            known = set(inspect(reading).get_table_names())
            present = [table for table in tables if table.name in known]
            refuse_rows(writing, tables)
            return {table.name: copy_table(reading, writing, table, progress) for table in present}
    finally:
        source.dispose()
        target.dispose()


def refuse_rows(connection: Connection, tables: Sequence[Table]) -> None:
    """Raises StoreError: a table has rows already. Two histories cannot be made one: their numbers overlap."""
    for table in tables:
        if connection.execute(select(table).limit(1)).first() is not None:
            raise StoreError(f"the target's table '{table.name}' has rows already; allowed: an empty database")


def copy_table(reading: Connection, writing: Connection, table: Table, progress: Progress) -> int:
    """Copies one table; returns the number of its rows, counted in the target. Raises StoreError."""
    expected = int(reading.execute(select(func.count()).select_from(table)).scalar_one())
    copied = 0
    for rows in pages(reading, table):
        writing.execute(insert(table), rows)
        copied += len(rows)
        progress(f"{table.name}: {copied} of {expected} rows")
    count = int(writing.execute(select(func.count()).select_from(table)).scalar_one())
    if count != expected:
        raise StoreError(f"table '{table.name}' has {expected} rows, of which {count} arrived; nothing was kept")
    set_sequence(writing, table)
    return count


def pages(reading: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    """The rows of a table, some at a time."""
    found = reading.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table))
    for partition in found.mappings().partitions():
        yield [dict(row) for row in partition]


def set_sequence(connection: Connection, table: Table) -> None:
    """Lets Postgres number new rows after the copied ones. SQLite takes the next number by itself."""
    [key] = table.primary_key.columns if len(table.primary_key.columns) == 1 else [None]
    if connection.dialect.name != "postgresql" or key is None or not isinstance(key.type, Integer):
        return
    newest = connection.execute(select(func.max(key))).scalar_one()
    name = {"table": table.name, "column": key.name}
    sequence = connection.execute(text("SELECT pg_get_serial_sequence(:table, :column)"), name).scalar_one()
    if sequence is not None and newest is not None:
        connection.execute(text("SELECT setval(:sequence, :newest)"), {"sequence": sequence, "newest": newest})
