"""The tables are those of their schema version: a database of the oldest coe that made version 1 is brought up to date,
read and written by this program.

`written_2026_11_26.sql` is the dump of what that coe wrote of two requests and a file. `schema_1.sql` has all tables as
they are made now: a new one is added to it by `python -m tests.decision_log.test_schema`. Another change fails in both
tests until it has a version of its own, with a migration.
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
OLDEST = Path(__file__).with_name("written_2026_11_26.sql")
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


def tables_in(path: Path) -> dict[str, str]:
    """Statements that made each table and index of a database."""
    with closing(sqlite3.connect(path)) as connection:
        made_by = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: " ".join(sql.split()) for name, sql in made_by}


def test_a_database_of_the_oldest_coe_is_brought_up_to_date_and_read(tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(OLDEST.read_text())
    for path in (new, old):
        store = Database(f"sqlite:///{path}")
        store.make_tables([each for each in SQLModel.metadata.sorted_tables if each in EVERY])
        store.write_decisions([made(0), made(1)])
        store.close()
    assert tables_in(old) == tables_in(new)
    with closing(Database(f"sqlite:///{old}")) as store:
        found = list(store.newest_decisions(since=0.0, limit=9))
        assert [each.requested_model for each in found[:2]] == ["auto", "auto"]
        assert all(each.embedding and each.decision and each.decision.expert == "left" for each in found[:2])
        assert [store.get_feedback(each.decision_id)[0].value for each in found[:2]] == [1.0, 0.0]
        assert {each.decision_id for each in found[2:]} == {made(0).decision_id, made(1).decision_id}
        assert list(store.add_up())
        spent, _ = store.spend(None, found[1].at, None)
        assert [(each.requests, each.prompt_tokens) for each in spent] == [(2, 13)]


if __name__ == "__main__":
    FILE.write_text(statements())
