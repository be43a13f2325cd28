"""`coe log migrate`: SQLite's history in Postgres, whole or not at all, and rows after it are numbered on."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Executable, insert, select, text

from base.errors import StoreError
from coe.command_line import run
from decision_log.copy_database import copy_database
from decision_log.database import Database
from decision_log.feedback_types import Feedback, FeedbackKind
from decision_log.sink import SPOOL_FOLDER
from decision_log.sql_engine import open_engine
from decision_log.tables import DECISIONS, FEEDBACK, TABLES
from fleet.folder_lock import FolderLock
from gateway.keys.key_store import KEYS
from gateway.keys.key_store import TABLES as KEY_TABLES
from tests.gateway.test_store import record

EVERY = [*TABLES, *KEY_TABLES]


def sign(decision_id: str, at: float) -> Feedback:
    return Feedback(decision_id=decision_id, kind=FeedbackKind.THUMB, value=1.0, at=at, key_id="k")


@pytest.fixture
def history(tmp_path: Path) -> str:
    """URL of an SQLite database with 1,200 decisions, of which two have feedback."""
    url = f"sqlite:///{tmp_path / 'coe.db'}"
    store = Database(url)
    records = [record(seq) for seq in range(1200)]
    store.write_decisions(records)
    for each in records[:2]:
        store.put_feedback(sign(each.decision_id, each.at + 1))
    store.close()
    return url


def rows_of(url: str, table) -> list[tuple]:
    engine = open_engine(url)
    with engine.connect() as connection:
        found = sorted(tuple(row) for row in connection.execute(select(table)))
    engine.dispose()
    return found


def test_postgres_has_every_row_and_goes_on_counting(history: str, postgres_url: str, tmp_path: Path, capsys) -> None:
    assert run("log migrate", ["--to", postgres_url, "--data-dir", str(tmp_path)]) == 0
    assert "decisions: 1200 rows" in capsys.readouterr().out
    for table in (DECISIONS, FEEDBACK):
        assert rows_of(postgres_url, table) == rows_of(history, table)
    store = Database(postgres_url)
    new = record(5000)
    assert store.write_decisions([new]) == 1
    store.put_feedback(sign(new.decision_id, new.at + 1))
    store.close()
    assert len(rows_of(postgres_url, FEEDBACK)) == 3


def test_a_second_copy_is_refused_and_changes_nothing(history: str, postgres_url: str, tmp_path: Path, capsys) -> None:
    arguments = ["--to", postgres_url, "--data-dir", str(tmp_path)]
    assert run("log migrate", arguments) == 0
    assert run("log migrate", arguments) == 1
    assert "the target's table 'decisions' has rows already; allowed: an empty database" in capsys.readouterr().err
    assert len(rows_of(postgres_url, DECISIONS)) == 1200


def change(url: str, statement: Executable) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(statement)
    engine.dispose()


def test_a_copy_that_fails_leaves_nothing(history: str, postgres_url: str, tmp_path: Path) -> None:
    """The last table cannot be written: what was copied before it is not kept."""
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    Database(empty).close()
    copy_database(empty, postgres_url, EVERY)
    change(postgres_url, text(f"ALTER TABLE {KEYS.name} ADD CONSTRAINT no_keys CHECK (key_id <> 'broken')"))
    store = Database(history)
    store.make_tables(KEY_TABLES)
    store.close()
    row = {"key_id": "broken", "name": "n", "grant_json": "{}", "digest": b"d", "created_at": 1.0}
    change(history, insert(KEYS).values(row))
    with pytest.raises(StoreError, match="no_keys"):
        copy_database(history, postgres_url, EVERY)
    assert rows_of(postgres_url, DECISIONS) == []


def test_a_running_gateway_is_named(history: str, postgres_url: str, tmp_path: Path, capsys) -> None:
    spool = tmp_path / SPOOL_FOLDER / "replica"
    spool.mkdir(parents=True)
    lock = FolderLock.try_acquire(spool)
    assert run("log migrate", ["--to", postgres_url, "--data-dir", str(tmp_path)]) == 1
    assert "a gateway runs on" in capsys.readouterr().err
    lock.release()


@pytest.mark.parametrize("target", ["nothing", "mysql://host/db"])
def test_a_target_that_is_no_database_is_named(history: str, tmp_path: Path, capsys, target: str) -> None:
    assert run("log migrate", ["--to", target, "--data-dir", str(tmp_path)]) == 1
    assert "allowed: sqlite:///FILE, postgresql://USER@HOST/DATABASE" in capsys.readouterr().err
