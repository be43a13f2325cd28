"""The tables are those of their schema version: a database that version 1 made is opened and written by this program.

`schema_1.sql` is what that version created. A change of the tables fails here until it has a version of its own, with a
migration from this file; before the first release the file may be made anew: python -m tests.decision_log.test_schema
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import SQLModel

from decision_log import admin_log, tables
from decision_log.database import Database
from decision_log.tables import SCHEMA_VERSION
from gateway.batches import batch_store as batches
from gateway.keys import key_store as keys
from retrieval.stores import tables as stores
from tests.decision_log.test_listing import made

FILE = Path(__file__).with_name(f"schema_{SCHEMA_VERSION}.sql")
EVERY = {*tables.TABLES, tables.SCHEMA, admin_log.ADMIN_LOG, *keys.TABLES, *batches.TABLES, *stores.TABLES}


def statements() -> str:
    """Statements that make every table of the project, in SQLite's words."""
    parts: list[CreateTable | CreateIndex] = []
    for table in (each for each in SQLModel.metadata.sorted_tables if each in EVERY):
        parts += [CreateTable(table), *(CreateIndex(i) for i in sorted(table.indexes, key=lambda i: str(i.name)))]
    text = "".join(f"{str(each.compile(dialect=sqlite.dialect())).strip()};\n" for each in parts)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def test_the_tables_are_those_of_their_version() -> None:
    assert statements() == FILE.read_text()


def test_a_database_that_the_version_made_is_kept_and_written(tmp_path: Path) -> None:
    path = tmp_path / "coe.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FILE.read_text())
        connection.execute("INSERT INTO coe_schema (version) VALUES (?)", (SCHEMA_VERSION,))
        connection.commit()
    store = Database(f"sqlite:///{path}")
    store.write_decisions([made(0), made(1)])
    found = store.get_decision(made(1).decision_id)
    store.close()
    assert found.decision_id == made(1).decision_id


if __name__ == "__main__":
    FILE.write_text(statements())
