"""Actions of clients, as they are read from the rows."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from coe.decision_log.database import Database
from coe.decision_log.decision_record import TerminalState
from coe.decision_log.feedback_types import FeedbackKind, ImplicitKind
from coe.decision_log.sql_removal import Removal
from coe.router.loop import LoopState
from tests.gateway.test_store import feedback, record


def asked(seq: int, at: float, text: str = "h", session: str | None = "s", **changes: object):
    return record(seq, at=at, session_id=session, text_hash=text, **changes)


def kinds(kept_in: Database, seq: int) -> list[ImplicitKind]:
    found = kept_in.get_decision(f"r1-{seq}")
    return [] if found is None else list(kept_in.get_signals(found))


def test_an_ask_that_comes_again_marks_the_one_before(store):
    store.write_decisions(
        [
            asked(0, 100.0),
            asked(1, 130.0),  # the same again
            asked(2, 140.0, text="other"),
            asked(3, 150.0, session="elsewhere"),
            asked(4, 730.5),  # more than ten minutes after
            asked(5, 731.0, session=None),
        ]
    )
    assert [kinds(store, seq) for seq in range(6)] == [[ImplicitKind.REASKED], [], [], [], [], []]


def test_an_agent_that_continues_with_results_of_tools_does_not_ask_again(store):
    store.write_decisions([asked(0, 100.0), asked(1, 101.0, loop=LoopState())])
    store.write_decisions([asked(2, 102.0, loop=LoopState())])
    assert not any(kinds(store, seq) for seq in range(3))
    store.write_decisions([asked(3, 103.0)])  # a person asks again
    assert [kinds(store, seq) for seq in range(4)] == [[ImplicitKind.REASKED], [], [], []]


def test_many_sessions_that_ask_again(store):
    texts = [f"h{number}" for number in range(501)]
    for batch in range(2):
        store.write_decisions(
            [asked(batch * len(texts) + seq, 100.0 + batch, text, text) for seq, text in enumerate(texts)]
        )
    assert all(kinds(store, seq) == [ImplicitKind.REASKED] for seq in range(len(texts)))
    assert not any(kinds(store, len(texts) + seq) for seq in range(len(texts)))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_rows_may_arrive_in_any_order_and_twice(tmp_path: Path, order):
    opened = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    rows = [asked(seq, 100.0 + seq) for seq in range(3)]
    for number in (*order, order[0]):
        opened.write_decisions([rows[number]])
    found = [kinds(opened, seq) for seq in range(3)]
    opened.close()
    assert found == [[ImplicitKind.REASKED], [ImplicitKind.REASKED], []]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": TerminalState.CLIENT_GONE, "ttft_ms": 5.0}, [ImplicitKind.ABORTED]),
        ({"state": TerminalState.CLIENT_GONE}, []),  # nothing of the answer was seen
        ({"finish_reason": "length"}, [ImplicitKind.CUT_OFF]),
        ({"finish_reason": "stop"}, []),
        ({"finish_reason": "length", "state": TerminalState.UPSTREAM_ERROR}, []),
    ],
)
def test_signals_of_the_record_itself(store, changes, expected):
    store.write_decisions([record(0, **changes)])
    assert kinds(store, 0) == expected
    assert store.get_feedback("r1-0") == ()  # never mixed


def test_no_signal_is_left_of_an_erased_decision(tmp_path: Path):
    opened = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    opened.write_decisions([asked(0, 1.0), asked(1, 2.0), asked(2, 3.0, session="other", finish_reason="length")])
    opened.put_feedback(feedback(1.0, kind=FeedbackKind.THUMB))
    Removal(opened).erase(["s"], 10.0)
    assert (kinds(opened, 0), kinds(opened, 2)) == ([], [ImplicitKind.CUT_OFF])
    Removal(opened).prune(5.0, 10.0)
    assert kinds(opened, 2) == []
    opened.close()
