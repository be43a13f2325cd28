"""Lists of decisions on SQLite and Postgres: every filter, every page, and nobody else's rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event, update
from sqlmodel import col

from coe.base.errors import StoreError
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.feedback_types import Feedback, FeedbackKind
from coe.decision_log.listing import DecisionFilter, DecisionLine, Page, Place
from coe.decision_log.spend import SLOT_S, slots_of
from coe.decision_log.tables.log import DecisionRow
from tests.gateway.test_store import record

TEAM = "acme"
STATES = ("answered", "timed_out")


def made(seq: int, decision: dict[str, object] | None = None, **changes: object) -> DecisionRecord:
    """A decision of the team's key 1, `seq` seconds after the first."""
    found = record(seq, **{"key_id": f"{TEAM}/1", "at": 1000.0 + seq, **changes})
    return found.model_copy(update={"decision": found.decision.model_copy(update=decision or {})})


def listed(store: Database, tenant: str = TEAM, limit: int = 100, **wanted: object) -> list[int]:
    page = store.list_decisions(tenant, DecisionFilter.model_validate(wanted), limit=limit)
    return [int(line.at) - 1000 for line in page.lines]


def test_a_team_sees_what_its_keys_made(store: Database) -> None:
    owners = [f"{TEAM}/1", f"{TEAM}/2", "acm/1", f"{TEAM}x/1", "ac_e/1", TEAM, None]
    store.write_decisions([made(seq, key_id=owner) for seq, owner in enumerate(owners)])
    assert listed(store) == [5, 1, 0]
    assert listed(store, "ac_e") == [4]
    assert listed(store, "") == [6]
    assert listed(store, "nobody") == []


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"since": 1002.0}, [3, 2]),
        ({"until": 1002.0}, [1, 0]),
        ({"category": "law"}, [1]),
        ({"expert": "other"}, [2]),
        ({"policy": "cheap"}, [3]),
        ({"state": "timed_out"}, [1]),
        ({"router_version": "v8"}, [3]),
        ({"conversation": "c1"}, [2, 0]),
        ({"probe": True}, [3]),
        ({"probe": False}, [2, 1, 0]),
        ({"doubt": "unsure"}, [2]),
        ({"doubt": "sure"}, [3, 1, 0]),
        ({"feedback": "good"}, [0]),
        ({"feedback": "bad"}, [2, 0]),
        ({"feedback": "any"}, [2, 0]),
        ({"feedback": "none"}, [3, 1]),
        ({"conversation": "c1", "feedback": "bad", "doubt": "sure"}, [0]),
    ],
)
def test_filters(store: Database, wanted: dict[str, object], found: list[int]) -> None:
    store.write_decisions(
        [
            made(0, session_id="c1"),
            made(1, {"category": "law"}, state="timed_out", status=504),
            made(2, {"is_fallback": True}, served_expert="other", session_id="c1"),
            made(3, {"policy": "cheap", "router_version": "v8"}, is_probe=True),
        ]
    )
    for seq, kind, value in ((0, FeedbackKind.THUMB, 1.0), (0, FeedbackKind.SCORE, 0.0), (2, FeedbackKind.THUMB, 0.0)):
        store.put_feedback(Feedback(decision_id=f"r1-{seq}", kind=kind, value=value, at=5.0, key_id=f"{TEAM}/1"))
    assert listed(store, **wanted) == found


def test_a_nul_that_a_client_or_an_expert_sent_ends_no_list(store: Database) -> None:
    store.write_decisions([made(0), made(1, requested_model="a\0b", finish_reason="\0")])
    assert listed(store, policy="default") == [1, 0]
    assert [each.requests for each in store.spend(TEAM, slots_of(0.0, None))] == [2]


def walked(store: Database, limit: int, **wanted: object) -> list[Page]:
    """All pages."""
    asked = DecisionFilter.model_validate(wanted)
    pages = [store.list_decisions(TEAM, asked, limit=limit)]
    while pages[-1].next is not None:
        pages.append(store.list_decisions(TEAM, asked, limit=limit, after=pages[-1].next))
    return pages


def test_pages_have_every_decision_once_also_those_of_one_moment(store: Database) -> None:
    store.write_decisions([made(seq, at=1000.0 + seq // 3) for seq in range(10)])
    pages = walked(store, 4)
    assert [len(page.lines) for page in pages] == [4, 4, 2]
    found = [line.decision_id for page in pages for line in page.lines]
    assert sorted(found) == [f"r1-{seq}" for seq in range(10)]
    assert found == sorted(found, reverse=True)


def test_no_record_is_read_of_a_time_in_which_a_team_asked_nothing(store: Database) -> None:
    store.write_decisions([made(SLOT_S * seq, key_id=f"{TEAM if seq == 3 else 'other'}/1") for seq in range(6)])
    with store.transaction("spoil") as connection:
        connection.execute(
            update(DecisionRow).where(col(DecisionRow.decision_id) != f"r1-{SLOT_S * 3}").values(record="{")
        )
    for wanted in ({}, {"policy": "default"}, {"since": 5.0, "until": 1e300}, {"until": 1e9}):
        assert listed(store, **wanted) == [SLOT_S * 3]
    assert listed(store, "nobody") == listed(store, "") == []


def test_a_decision_of_an_impossible_time_is_listed(store: Database) -> None:
    store.write_decisions([made(seq, at=at, key_id=f"{TEAM}/1") for seq, at in enumerate((1e300, -5.0, 1e11))])
    ids = [line.decision_id for line in store.list_decisions(TEAM, DecisionFilter(), limit=100).lines]
    assert ids == ["r1-0", "r1-2", "r1-1"]


INDEX_OF = {
    "expert": ({"expert": "x"}, "decisions_tenant"),
    "since": ({"since": 5.0, "until": 9.0, "state": "timed_out"}, "decisions_tenant"),
    "conversation": ({"conversation": "c", "expert": "x"}, "decisions_session"),
    "rare feedback": ({"feedback": "bad", "expert": "x"}, "sqlite_autoindex_decisions_1"),
    "no feedback": ({"feedback": "none"}, "decisions_tenant"),
    "nothing": ({}, "decisions_tenant"),
}


@pytest.mark.parametrize(("wanted", "index"), INDEX_OF.values(), ids=INDEX_OF)
def test_the_index_of_a_condition_finds_its_rows(tmp_path: Path, wanted: dict[str, object], index: str) -> None:
    store, asked = Database(f"sqlite:///{tmp_path / 'coe.db'}"), []
    store.put_feedback(Feedback(decision_id="r1-0", kind=FeedbackKind.THUMB, value=0.0, at=5.0))

    @event.listens_for(store._engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    store.list_decisions(TEAM, DecisionFilter.model_validate(wanted), limit=5, after=Place(2000.0, "r"))
    queries = [each for each in asked if each[0].startswith("SELECT decisions.")]
    event.remove(store._engine, "before_cursor_execute", note)
    with store.transaction("explain") as connection:
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given).all() for sql, given in queries]
    store.close()
    assert [index in plan[0].detail for plan in plans] == [True], plans


def test_feedback_that_is_not_rare_is_found_on_the_way(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.decision_log.listing.FEW", 2)
    store.write_decisions([made(seq) for seq in range(6)])
    for seq in (1, 2, 4):
        said = Feedback(decision_id=f"r1-{seq}", kind=FeedbackKind.THUMB, value=0.0, at=5.0, key_id=f"{TEAM}/1")
        store.put_feedback(said)
    assert listed(store, feedback="bad") == [4, 2, 1]


@pytest.mark.parametrize(
    "wanted", [{"expert": "other"}, {"category": "law"}, {"state": "timed_out"}, {"router_version": "v8"}]
)
def test_a_rare_filter_reads_no_record_that_it_leaves_out(store: Database, wanted: dict[str, object]) -> None:
    rare = made(3, {"category": "law", "router_version": "v8"}, served_expert="other", state="timed_out")
    store.write_decisions([made(0), made(1), rare])
    with store.transaction("break what must not be read") as connection:
        connection.execute(update(DecisionRow).where(col(DecisionRow.decision_id) != "r1-3").values(record="{"))
    assert listed(store, **wanted) == [3]


def test_a_line_says_how_it_ended_and_what_was_said(store: Database) -> None:
    store.write_decisions([made(0, usage={"prompt_tokens": 3, "completion_tokens": 4}, cost_usd=0.5, text="hello")])
    store.put_feedback(Feedback(decision_id="r1-0", kind=FeedbackKind.THUMB, value=1.0, at=5.0, key_id="a"))
    store.put_feedback(Feedback(decision_id="r1-0", kind=FeedbackKind.EDIT, value=0.25, at=5.0, key_id="a"))
    (line,) = store.list_decisions(TEAM, DecisionFilter(), limit=5).lines
    assert line == DecisionLine(
        decision_id="r1-0", at=1000.0, kind="chat", requested_model="auto", state="answered", status=200,
        error_code=None, expert="answered", category="code", likely_category="code", confidence=0.5, uncertainty=0.5,
        is_fallback=False, reason="map", propensity=0.25, policy="default", router_version="v7", session_id=None,
        key_id="acme/1", language=None, turns=1, prompt_tokens=3, completion_tokens=4, cost_usd=0.5, ttft_ms=None,
        latency_ms=1.0, is_probe=False, feedback=0.75, text="hello",
    )  # fmt: skip


def test_a_request_without_a_decision_is_listed(store: Database) -> None:
    store.write_decisions([record(0, decision=None, served_expert=None, key_id="acme/1", state="rejected", status=429)])
    (line,) = store.list_decisions(TEAM, DecisionFilter(), limit=5).lines
    assert (line.expert, line.category, line.status) == (None, None, 429)


def test_damaged_rows_are_named(store: Database) -> None:
    store.write_decisions([made(0), made(1)])
    row = update(DecisionRow).where(col(DecisionRow.decision_id) == "r1-1")
    with store.transaction("test") as connection:
        connection.execute(row.values(record='{"key_id": "acme/1", "decision": null}'))
    with pytest.raises(StoreError, match="not a decision record"):
        listed(store)
