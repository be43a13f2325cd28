from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from base.errors import ConfigError
from decision_log.database import Database
from decision_log.decision_record import DecisionRecord
from decision_log.feedback_types import Feedback, FeedbackKind
from decision_log.ledger import Ledger
from decision_log.removal_commands import erase_decisions
from decision_log.spool import Spool
from decision_log.stream_entries import dead_stream
from tests.decision_log.running_log import make_record
from tests.gateway.running import config_of

DATABASES = ("sqlite",)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "experts.yaml"
    path.write_text(json.dumps(config_of().model_dump(mode="json", exclude_none=True)))
    return path


@pytest.fixture(name="redis_url")
def named_redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REDIS_URL", redis_url)
    return redis_url


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_what_is_old_is_erased(
    tmp_path: Path, store: Database, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    store.write_decisions([make_record(seq).model_copy(update={"at": now - 86_400 * seq - 60}) for seq in range(4)])
    with Redis.from_url(redis_url) as client:
        for place, seq in enumerate((9, 10**20)):  # the latter is too large for a column
            client.xadd(
                dead_stream("coe:decisions"),
                {"record": make_record(seq).model_dump_json()},
                id=f"{int((now - 86_400 * 3) * 1000)}-{place}",
            )
        client.xadd(dead_stream("coe:decisions"), {"record": "y"})
        assert erase_decisions(None, "2d", tmp_path, config) == 0
        assert client.xlen(dead_stream("coe:decisions")) == 1
    assert "erased 2 decisions, 0 pieces of feedback, 2 dead letters" in capsys.readouterr().out
    assert store.count() == 2
    assert range(9, 10) in Ledger(store).accounts()[0].removed
    assert erase_decisions(None, "2d", tmp_path, config) == 0
    assert erase_decisions(None, "99999d", tmp_path, config) == 0  # before 1970
    assert capsys.readouterr().out.count("erased 0 decisions, 0 pieces of feedback, 0 dead letters") == 2


def test_erase(
    tmp_path: Path, store: Database, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write_decisions([make_record(0).model_copy(update={"key_id": "key-1"}), make_record(1)])
    for erased in (1, 0):
        assert erase_decisions("key-1", None, tmp_path, config) == 0
        assert f"erased {erased} decisions and 0 pieces of feedback from SQL" in capsys.readouterr().out
    assert store.count() == 1


def test_a_dry_run_says_what_erasing_then_does_and_changes_nothing(
    tmp_path: Path, store: Database, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def of(key: str, seq: int) -> DecisionRecord:
        return make_record(seq).model_copy(update={"key_id": key})

    def say(decision_id: str, kind: FeedbackKind, key: str) -> None:
        store.put_feedback(Feedback(decision_id=decision_id, kind=kind, value=1.0, at=time.time() - 9, key_id=key))

    store.write_decisions([of("key-1", 0), of("key-1", 1), of("key-2", 2)])
    say("r1-0", FeedbackKind.THUMB, "key-1")
    say("r1-0", FeedbackKind.EDIT, "key-1")
    say("r1-2", FeedbackKind.THUMB, "key-2")
    say("r1-2", FeedbackKind.EDIT, "key-1")  # by the subject, of a decision that stays
    say("r1-4", FeedbackKind.THUMB, "key-1")  # of a decision that is still on its way
    spool = Spool(tmp_path / "spool" / "r1", max_bytes=1_000_000)
    spool.open()
    spool.write([of("key-1", 3).model_dump_json().encode(), of("key-2", 5).model_dump_json().encode()])
    spool.close()
    spooled = tmp_path / "spool" / "r1" / "spool.db"
    with Redis.from_url(redis_url) as client:
        client.xadd("coe:decisions", {"record": of("key-1", 4).model_dump_json()})
        client.xadd(dead_stream("coe:decisions"), {"record": of("key-1", 6).model_dump_json()})

        def everything() -> tuple[object, ...]:
            with closing(sqlite3.connect(tmp_path / "coe.db")) as connection:
                names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                rows = [connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in sorted(names)]
            return rows, spooled.read_bytes(), client.xlen("coe:decisions"), client.xlen(dead_stream("coe:decisions"))

        before = everything()
        told = "2 decisions and 4 pieces of feedback from SQL, 2 records from the stream, 1 from spools"
        for _ in range(2):
            assert erase_decisions("key-1", None, tmp_path, config, dry_run=True) == 0
            assert f"would erase {told}" in capsys.readouterr().out
            assert everything() == before
        assert erase_decisions("key-1", None, tmp_path, config) == 0
        assert f"erased {told}" in capsys.readouterr().out
        assert everything() != before
        assert erase_decisions("key-1", None, tmp_path, config, dry_run=True) == 0
        assert "would erase 0 decisions and 0 pieces of feedback from SQL, 0 records from" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give either --subject or --older-than"),
        ({"subject": "key-1", "older_than": "2d"}, "give either --subject or --older-than"),
        ({"older_than": "2d", "dry_run": True}, "--dry-run: it needs --subject"),
        ({"subject": " "}, "--subject is empty"),
    ],
)
def test_what_to_erase_is_said_once(
    tmp_path: Path,
    config: Path,
    redis_url: str,
    given: dict[str, str],
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        erase_decisions(**given, data_dir=tmp_path, config=config)


def test_what_is_old_moves_to_files(
    tmp_path: Path, store: Database, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    store.write_decisions([make_record(seq).model_copy(update={"at": now - 86_400 * seq - 60}) for seq in range(4)])
    assert erase_decisions(None, "2d", tmp_path, config, archive=tmp_path / "old") == 0
    assert capsys.readouterr().out.startswith("moved 2 decisions and 0 pieces of feedback to ")
    assert list((tmp_path / "old").rglob("*.gz"))
    assert store.get_decision("r1-3") is None
    assert store.get_decision("r1-1") is not None
