"""The second pass over the log: vectors that were logged, texts that are encoded, rows that are gone."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from coe.base.errors import ConfigError
from coe.cli.progress import silent
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.sql_engine import open_log
from coe.router.features import to_bytes
from coe.training.log_answers import fetch_answers, sample_rows
from coe.training.log_table import read_log_table
from tests.logged import answered, decision_of


@dataclass
class CountingEncoder:
    """Length and number of words, and how many texts were encoded."""

    dim: int = 2
    fingerprint: str = "lengths"
    is_inline: bool = True
    seen: list[str] = field(default_factory=list)

    def encode(self, texts):
        self.seen += texts
        return np.array([[len(text), len(text.split())] for text in texts], dtype=np.float32)


def record(i: int, **changes) -> DecisionRecord:
    decision = decision_of(
        "left",
        "sql",
        eligible=("left", "right", "third"),
        eligible_probs=(0.9, 0.1, 0.0),
        excluded={"mute": "does not take images"},
        propensity=0.9,
    )
    return answered(f"d{i}", i, decision, **({"replica": "a", "latency_ms": 5.0} | changes))


INSERT_DECISION = """INSERT INTO decisions
(decision_id, at, replica, seq, state, is_probe, tenant, record, embedding, encoder_fingerprint)
VALUES (:i, :at, 'a', 0, 'answered', false, '', :r, :e, :f)"""
INSERT_THUMB = "INSERT INTO feedback (decision_id, kind, value, at, key_id) VALUES (:i, 'thumb', 1, 0, '')"


@pytest.fixture
def url(tmp_path):
    """d0 has text; d1 a vector and no text; d2 a vector of another encoder and no text; d3 text and a vector."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    Database(url).close()
    engine = create_engine(url)
    vector = to_bytes(np.array([3.0, 4.0], dtype=np.float32))
    rows = [
        (record(0, text="two words"), None, None),
        (record(1), vector, "lengths"),
        (record(2), vector, "others"),
        (record(3, text="never encoded"), vector, "lengths"),
    ]
    with engine.begin() as connection:
        for each, data, fingerprint in rows:
            values = {"i": each.decision_id, "at": each.at, "r": each.model_dump_json(), "e": data, "f": fingerprint}
            connection.execute(text(INSERT_DECISION), values)
            connection.execute(text(INSERT_THUMB), values)
    engine.dispose()
    return url


def test_logged_vectors_are_used_also_without_a_text(url):
    encoder = CountingEncoder()
    log = read_log_table(url)
    asked = fetch_answers(url, log, encoder, silent)
    assert asked.log.ids.tolist() == [b"d0", b"d1", b"d3"]
    assert encoder.seen == ["two words"]
    assert asked.embeddings.tolist() == [[9.0, 2.0], [3.0, 4.0], [3.0, 4.0]]
    assert asked.texts == ("two words", "", "never encoded")
    assert asked.chances == ({"left": 0.9, "right": 0.1, "third": 0.0, "mute": 0.0},) * 3
    assert asked.excluded == (("mute",),) * 3


def test_no_more_texts_are_encoded_than_allowed(url):
    encoder = CountingEncoder()
    asked = fetch_answers(url, read_log_table(url), encoder, silent, max_encoded=0)
    assert asked.log.ids.tolist() == [b"d1", b"d3"]
    assert encoder.seen == []


def test_what_was_erased_between_the_passes_is_left_out(url):
    log = read_log_table(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM decisions WHERE decision_id = 'd1'"))
    engine.dispose()
    assert fetch_answers(url, log, CountingEncoder(), silent).log.ids.tolist() == [b"d0", b"d3"]


def test_a_sample_is_the_same_in_every_run_and_in_order(url):
    log = read_log_table(url)
    rows = np.arange(4)
    sample = sample_rows(log, rows, 2)
    assert len(sample) == 2
    assert sample.tolist() == sorted(sample.tolist()) == sample_rows(log, rows, 2).tolist()
    assert sample_rows(log, rows, 4).tolist() == rows.tolist()


def test_a_database_that_is_not_supported_is_an_error_about_the_url():
    with pytest.raises(ConfigError, match="allowed: sqlite:///FILE"), open_log("mysql://user@host/database"):
        pass


def test_errors_of_the_database_show_no_password():
    with pytest.raises(ConfigError, match="allowed: sqlite:///FILE") as caught, open_log("not a url, pass:secret"):
        pass
    assert "secret" not in str(caught.value)
