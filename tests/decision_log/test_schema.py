"""The schema of the database: brought up to date under a lock, or left as it was, on SQLite and Postgres."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from coe.base.errors import StoreError
from coe.cli.command_line import run
from coe.decision_log import schema
from coe.decision_log.database import Database
from coe.decision_log.sql_engine import open_engine
from coe.decision_log.tables import METADATA
from tests.decision_log.running_log import make_record

OLD_SCHEMA = Path(__file__).with_name("old_schema")
NEXT = """
import os
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade():
    op.execute("UPDATE decisions SET record = 'changed'")
    op.add_column("decisions", sa.Column("added", sa.Text()))
    op.create_table("created", sa.Column("id", sa.Integer(), primary_key=True))
"""
CHILD = """
import sys
from pathlib import Path
from coe.decision_log import schema
from coe.decision_log.sql_engine import open_engine
schema.FOLDER, schema.HEAD = Path(sys.argv[1]), "0002"
schema.upgrade(open_engine(sys.argv[2]))
"""


def fill_as_before_alembic(url: str) -> list[str]:
    """Create the tables as the last version without Alembic did, with rows; return the decisions' ids."""
    engine = open_engine(url)
    statements = (OLD_SCHEMA / f"{engine.dialect.name}.sql").read_text().split(";\n")
    with engine.begin() as connection:
        for statement in filter(str.strip, statements):
            connection.execute(text(statement))
    current = Database(url)
    records = [make_record(seq=seq) for seq in range(3)]
    current.write_decisions(records)
    current.close()
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {schema.VERSION_TABLE}"))
        for lazily_made in ("batch_results", "retrain_turns"):  # parts of the gateway that were never used
            connection.execute(text(f"DROP TABLE {lazily_made}"))
    engine.dispose()
    return [record.decision_id for record in records]


def state_of(engine: Engine) -> tuple[Any, ...]:
    """Return the version, the tables, the columns of `decisions` and their records."""
    with engine.connect() as connection:
        found = inspect(connection)
        columns = [column["name"] for column in found.get_columns("decisions")]
        records = connection.execute(text("SELECT decision_id, record FROM decisions ORDER BY decision_id")).all()
        return schema.version_of(connection), sorted(found.get_table_names()), columns, records


@pytest.fixture
def next_migrations(tmp_path: Path) -> Path:
    """Return a folder with the migrations and one more."""
    folder = Path(shutil.copytree(schema.FOLDER, tmp_path / "migrations"))
    (folder / "versions" / "schema_0002.py").write_text(NEXT)
    return folder


def test_head_is_the_last_migration() -> None:
    assert ScriptDirectory(str(schema.FOLDER)).get_current_head() == schema.HEAD


def test_the_migrations_make_the_tables(database_url: str) -> None:
    Database(database_url).close()
    engine = open_engine(database_url)
    with engine.connect() as connection:
        assert schema.version_of(connection) == schema.HEAD
        assert schema.differences(connection) == []
        connection.execute(text("DROP INDEX decisions_at"))
        connection.execute(text("ALTER TABLE replicas DROP COLUMN settled"))
        connection.execute(text("CREATE TABLE of_somebody_else (id INTEGER)"))
        assert schema.differences(connection) == ["add index decisions_at", "add column replicas settled"]
    engine.dispose()


def test_a_database_of_before_alembic_is_upgraded_once_by_processes_that_start_at_once(database_url: str) -> None:
    ids = fill_as_before_alembic(database_url)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(Database, [database_url] * 4))
    try:
        assert [opened[0].get_decision(each).decision_id for each in ids] == ids
        with opened[0].transaction("look") as connection:
            assert connection.execute(text(f"SELECT version_num FROM {schema.VERSION_TABLE}")).all() == [(schema.HEAD,)]
            assert schema.differences(connection) == []
            assert METADATA.tables.keys() <= set(inspect(connection).get_table_names())
    finally:
        for database in opened:
            database.close()


def test_a_newer_database_is_refused_by_its_version_and_stays(database_url: str) -> None:
    Database(database_url).close()
    engine = open_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    before = state_of(engine)
    with pytest.raises(StoreError, match=f"has schema 9999, which is newer than schema {schema.HEAD} of this version"):
        Database(database_url)
    assert state_of(engine) == before
    engine.dispose()


@pytest.mark.parametrize("end", ["raise OSError('the disk is full')", "os.kill(os.getpid(), 9)"])
def test_an_interrupted_migration_leaves_the_database_as_it_was(
    database_url: str, next_migrations: Path, end: str
) -> None:
    database = Database(database_url)
    database.write_decisions([make_record(seq=seq) for seq in range(3)])
    database.close()
    engine = open_engine(database_url)
    before = state_of(engine)
    command = [sys.executable, "-c", CHILD, str(next_migrations), database_url]
    whole = next_migrations / "versions" / "schema_0002.py"
    whole.write_text(f"{NEXT}    {end}\n")
    assert subprocess.run(command, capture_output=True).returncode != 0
    assert state_of(engine) == before
    whole.write_text(NEXT)
    subprocess.run(command, check=True, capture_output=True)
    version, tables, columns, records = state_of(engine)
    assert (version, "created" in tables, columns[-1]) == ("0002", True, "added")
    assert {record for _, record in records} == {"changed"}
    engine.dispose()


def test_db_check_changes_nothing_and_db_upgrade_mends(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_as_before_alembic(database_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    engine = open_engine(database_url)
    before = state_of(engine)
    assert run("db check", ["--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"it has schema of before 0001, and this coe has {schema.HEAD}",
        "add table batch_results",
        "add table retrain_turns",
        "run `coe db upgrade`",
    ]
    assert state_of(engine) == before
    assert run("db upgrade", ["--data-dir", str(tmp_path)]) == 0
    assert run("db check", ["--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"the database has schema {schema.HEAD}\n" + (
        f"the database has schema {schema.HEAD}, as this version of coe\n"
    )
    engine.dispose()


def test_alembic_is_not_loaded_when_the_schema_is_up_to_date(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'coe.db'}"
    Database(url).close()
    code = "import sys; from coe.decision_log.database import Database; Database(sys.argv[1])"
    code += "; print('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True).stdout == "False\n"
