from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from coe.base.errors import ConfigError, StoreError
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.feedback_types import Feedback, FeedbackKind
from coe.decision_log.sql_engine import write_ahead
from tests.logged import answered, decision_of


def record(seq: int, replica: str = "r1", **changes: object) -> DecisionRecord:
    decision = decision_of("chosen", "code", confidence=0.5, uncertainty=0.5, propensity=0.25, router_version="v7")
    values = {"request_id": "q", "replica": replica, "at": 1_700_000_000.123456, "served_expert": "answered"}
    return answered(f"{replica}-{seq}", seq, decision, **(values | changes))


def feedback(value: float, key_id: str | None = None, **changes: object) -> Feedback:
    values = {"decision_id": "r1-0", "kind": FeedbackKind.THUMB, "value": value, "at": 5.0, "key_id": key_id}
    return Feedback.model_validate({**values, **changes})


def test_round_trip(store: Database) -> None:
    written = record(0, text="naïve “text” with NUL \0 and 日本語")
    assert store.write_decisions([written]) == 1
    assert store.get_decision("r1-0") == record(0, text="naïve “text” with NUL \ufffd and 日本語")
    assert store.get_decision("r1-1") is None


def test_writing_again_adds_nothing_and_changes_nothing(store: Database) -> None:
    first = [record(0), record(1)]
    assert store.write_decisions(first) == 2
    again = [record(0, latency_ms=99.0), record(1), record(2), record(2)]
    assert store.write_decisions(again) == 1
    assert store.count() == 3
    assert store.get_decision("r1-0") == first[0]
    assert store.write_decisions([]) == 0


def test_columns_that_training_selects(store: Database) -> None:
    store.write_decisions([record(0), record(1, served_expert=None), record(2, served_expert=None, decision=None)])
    with store._engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT decision_id, at, replica, seq, state, expert, category, router_version FROM decisions ORDER BY seq"
        ).all()
    at = 1_700_000_000.123456
    assert [tuple(row) for row in rows] == [
        ("r1-0", at, "r1", 0, "answered", "answered", "code", "v7"),
        ("r1-1", at, "r1", 1, "answered", "chosen", "code", "v7"),
        ("r1-2", at, "r1", 2, "answered", None, None, None),
    ]


def test_last_feedback_of_a_kind_and_key_wins(store: Database) -> None:
    assert store.put_feedback(feedback(1.0)) == "accepted"
    assert store.put_feedback(feedback(1.0, at=5.5)) == "repeated"
    assert store.get_feedback("r1-0") == (feedback(1.0),)
    assert store.put_feedback(feedback(0.0, at=6.0)) == "replaced"
    assert store.put_feedback(feedback(0.5, key_id="k1", at=7.0)) == "accepted"
    assert store.put_feedback(feedback(0.25, kind=FeedbackKind.SCORE, at=8.0)) == "accepted"
    assert store.get_feedback("r1-0") == (
        feedback(0.0, at=6.0),
        feedback(0.5, key_id="k1", at=7.0),
        feedback(0.25, kind=FeedbackKind.SCORE, at=8.0),
    )
    assert store.get_feedback("other") == ()


def test_threads_may_write_at_once(store: Database) -> None:
    batches = [[record(seq) for seq in range(start, start + 20)] for start in range(0, 100, 10)]
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(store.write_decisions, batches)) == 110
    assert store.count() == 110


def test_opens_again_with_what_was_written(database_url: str, store: Database) -> None:
    store.write_decisions([record(0)])
    again = Database(database_url)
    assert again.count() == 1
    again.close()


def test_sqlite_readers_do_not_wait_for_the_writer(tmp_path: Path) -> None:
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    store.write_decisions([record(0)])
    with sqlite3.connect(tmp_path / "coe.db", isolation_level=None) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.execute("BEGIN IMMEDIATE")
        assert store.count() == 1
        other.execute("ROLLBACK")
    other.close()
    store.close()


def test_a_locked_database_is_retryable_and_keeps_text_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.decision_log.sql_engine.BUSY_TIMEOUT_MS", 1)
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    other = sqlite3.connect(tmp_path / "coe.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked") as caught:
        store.write_decisions([record(0, text="private words")])
    assert caught.value.is_retryable
    assert "private words" not in str(caught.value)
    other.close()
    assert store.write_decisions([record(0)]) == 1
    store.close()


def test_a_refused_row_is_not_retryable(tmp_path: Path) -> None:
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    with store._engine.begin() as connection:
        connection.exec_driver_sql("CREATE TRIGGER t BEFORE INSERT ON decisions BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(StoreError, match="cannot write decisions in the database: no") as caught:
        store.write_decisions([record(0)])
    assert not caught.value.is_retryable
    store.close()


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^cannot open the database: unable to open"):
        Database(f"sqlite:///{tmp_path / 'missing' / 'coe.db'}")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("no url", "is not a database URL"),
        ("nosuch://host/db", "is not a database URL"),
        ("mysql://me:secret@host/db", "is of database 'mysql'"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_urls_that_are_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        Database(url)
    assert "secret" not in str(caught.value)
    assert "allowed: sqlite:///FILE" in str(caught.value)


def test_postgres_away_is_retryable(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Database(f"postgres://coe:secret@/db?host={tmp_path}")
    assert caught.value.is_retryable
    assert "secret" not in str(caught.value)


def test_postgres_is_reached_by_any_of_its_schemes(postgres_url: str) -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        store = Database(postgres_url.replace("postgresql", scheme))
        assert store.get_decision("none") is None
        store.close()


INPUTS = {"encoder": "enc", "features": "f" * 24, "settings": "s" * 16, "facts": {"turns": 2, "has_image": True}}


def test_an_embedding_has_a_column_and_is_not_in_the_json(store: Database) -> None:
    written = record(0, embedding=b"\x00\x3c", inputs=INPUTS, session_id="s", text_hash="h")
    plain = record(1)
    store.write_decisions([written, plain])
    assert store.get_decision("r1-0") == written
    assert store.get_decision("r1-1") == plain
    with store.transaction("look") as connection:
        rows = connection.exec_driver_sql(
            "SELECT embedding, encoder_fingerprint, session_id, text_hash, record FROM decisions ORDER BY seq"
        ).all()
    assert [bytes(rows[0][0]), *rows[0][1:4]] == [b"\x00\x3c", "enc", "s", "h"]
    assert tuple(rows[1][:4]) == (None, None, None, None)
    assert "embedding" not in json.loads(rows[0][4])


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_processes_that_start_at_once_make_one_schema(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'coe.db'}"
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(Database, [url] * 4))
    for opened in stores:
        assert opened.count() == 0
        opened.close()


def test_a_file_that_cannot_be_written_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "coe.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
    monkeypatch.setattr("coe.decision_log.sql_engine.time.sleep", lambda _: pytest.fail("it waits"))
    with (
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        write_ahead(connection)
