"""Rewards and signals as they are read from the database that a gateway writes."""

import sqlite3

import pytest
from sqlalchemy import create_engine

from gateway.store import Store
from router.features import to_bytes
from router.types import DecisionRecord, Feedback, FeedbackKind, ImplicitKind
from tests.training.log_records import record as any_record
from training.datasets.decision_log import read_log, read_rewards, read_signals

EMBEDDING = b"\x00\x3c\x00\x00"  # 1, 0


def record(seq: int, **changes: object) -> DecisionRecord:
    return any_record(seq, propensity=0.25, version="v7", **changes)


def say(store: Store, decision_id: str, kind: FeedbackKind, value: float, key_id: str | None = None) -> None:
    store.put_feedback(Feedback(decision_id=decision_id, kind=kind, value=value, at=20.0, key_id=key_id))


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'coe.db'}"


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


@pytest.fixture
def connection(url, store):
    engine = create_engine(url)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def test_signs_are_weighed_by_kind_and_key(store, connection):
    say(store, "d0", FeedbackKind.THUMB, 1.0, "a")  # 2
    say(store, "d0", FeedbackKind.TICKET, 0.0, "b")  # 4
    say(store, "d1", FeedbackKind.THUMB, 1.0, "b")
    assert read_rewards(connection) == pytest.approx({"d0": 1 / 3, "d1": 1.0})
    assert read_rewards(connection, {"b": 0.25}) == pytest.approx({"d0": 2 / 3, "d1": 1.0})
    assert read_rewards(connection, {"b": 0.0}) == {"d0": 1.0}  # a key that counts nothing says nothing


def test_embeddings_without_any_text(store, url):
    inputs = {"encoder": "enc", "features": "f", "settings": "s", "facts": {}}
    store.write_decisions([record(0, embedding=EMBEDDING, inputs=inputs), record(1)])
    for seq in (0, 1):
        say(store, f"d{seq}", FeedbackKind.THUMB, 1.0)
    first, second = read_log(url).used
    assert first.text is None
    assert to_bytes(first.vector("enc")) == EMBEDDING
    assert (first.vector("another"), second.vector("enc")) == (None, None)


def test_signals_are_apart_from_feedback(store, connection, url):
    store.write_decisions(
        [
            record(0, session_id="s", text_hash="h", finish_reason="length"),
            record(1, session_id="s", text_hash="h"),
        ]
    )
    assert read_signals(connection) == {"d0": (ImplicitKind.CUT_OFF, ImplicitKind.REASKED)}
    assert read_rewards(connection) == {}
    assert read_log(url).dropped == {"no feedback": 2}


def test_a_database_of_an_older_version_can_be_read(tmp_path, url):
    with sqlite3.connect(tmp_path / "coe.db") as old:
        old.execute("CREATE TABLE decisions (decision_id TEXT, at REAL, record TEXT)")
        old.execute("CREATE TABLE feedback (decision_id TEXT, kind TEXT, value REAL)")
        plain = record(0).model_dump_json(exclude={"inputs", "embedding"})
        old.execute("INSERT INTO decisions VALUES ('d0', 10, ?)", (plain,))
        old.execute("INSERT INTO feedback VALUES ('d0', 'thumb', 1)")
    old.close()
    (answer,) = read_log(url).used
    assert (answer.reward, answer.embedding) == (1.0, None)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert read_signals(connection) == {}
    engine.dispose()
