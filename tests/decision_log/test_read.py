"""Rewards and signals as they are read from the database that a gateway writes."""

import pytest
from sqlalchemy import create_engine, text

from coe.base.errors import StoreError
from coe.decision_log.database import Database
from coe.decision_log.decision_record import OUR_FAULTS, DecisionRecord, TerminalState
from coe.decision_log.feedback_types import Feedback, FeedbackKind, ImplicitKind
from coe.decision_log.read import has_failed, implicit_kinds, read_reasked, read_records, read_rewards
from coe.router.loop import LoopState
from coe.router.types import DecisionReason
from coe.training.log_table import build_table
from tests.training.log_records import record as any_record

DATABASES = ("sqlite",)

EMBEDDING = b"\x00\x3c\x00\x00"  # 1, 0


def record(seq: int, **changes: object) -> DecisionRecord:
    return any_record(seq, propensity=0.25, version="v7", **changes)


def say(store: Database, decision_id: str, kind: FeedbackKind, value: float, key_id: str | None = None) -> None:
    store.put_feedback(Feedback(decision_id=decision_id, kind=kind, value=value, at=20.0, key_id=key_id))


@pytest.fixture
def connection(database_url, store):
    engine = create_engine(database_url)
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


def test_feedback_on_a_loops_last_step_is_credited_to_the_decision_on_its_ask(store, connection):
    loop = LoopState(turns=1)
    of_session = {"session_id": "s", "text_hash": "h"}
    store.write_decisions(
        [
            record(0, **of_session),
            record(1, session_id="s", text_hash="a sub-agent's"),
            record(2, **of_session, loop=loop),
            record(3, **of_session),  # the same words again
            record(4, **of_session, loop=loop),
            record(5, session_id="other", text_hash="h", loop=loop),
            record(6, loop=loop),
        ]
    )
    say(store, "d2", FeedbackKind.TEST, 1.0)  # 4
    say(store, "d3", FeedbackKind.THUMB, 1.0)  # 2
    say(store, "d4", FeedbackKind.TEST, 0.0)
    say(store, "d5", FeedbackKind.TEST, 1.0)  # nobody logged its ask
    say(store, "d6", FeedbackKind.TEST, 1.0)
    assert read_rewards(connection) == {"d2": 1.0, "d3": 1.0, "d4": 0.0, "d5": 1.0, "d6": 1.0}
    of_tasks = read_rewards(connection, of_tasks=True)
    assert of_tasks == pytest.approx({"d0": 1.0, "d3": 1 / 3, "d5": 1.0, "d6": 1.0})


def test_embeddings_without_any_text(store, connection):
    inputs = {"encoder": "enc", "features": "f", "settings": "s", "facts": {}}
    store.write_decisions([record(0, embedding=EMBEDDING, inputs=inputs), record(1)])
    first, second = read_records(connection, 0.0)
    assert (first.text, first.embedding, second.embedding) == (None, EMBEDDING, None)


def of_named_expert(seq: int) -> DecisionRecord:
    """An answer of an expert that the client had named."""
    routed = record(seq)
    named = routed.decision.model_copy(update={"reason": DecisionReason.EXPLICIT, "propensity": 1.0})
    return routed.model_copy(update={"decision": named})


def test_an_expert_that_the_client_named_teaches_nothing_and_is_not_traffic():
    """It was not chosen, so its reward says nothing of the choice, and its category is unknown."""
    log = build_table([record(0), of_named_expert(1)], {"d0": 1.0, "d1": 1.0})
    assert (log.at.tolist(), dict(log.traffic)) == ([10.0], {"code": 1})
    assert dict(log.dropped) == {"the client named the expert": 1}


def test_what_coe_asked_itself_teaches_nothing_and_is_not_traffic():
    log = build_table([record(0), record(1, is_probe=True)], {"d0": 1.0, "d1": 1.0})
    assert (log.at.tolist(), dict(log.traffic)) == ([10.0], {"code": 1})
    assert dict(log.dropped) == {"asked by coe itself": 1}


def test_signals_are_apart_from_feedback(store, connection):
    store.write_decisions(
        [
            record(0, session_id="s", text_hash="h", finish_reason="length"),
            record(1, session_id="s", text_hash="h"),
        ]
    )
    reasked = read_reasked(connection)
    kinds = [implicit_kinds(each, reasked) for each in read_records(connection, 0.0)]
    assert kinds == [(ImplicitKind.CUT_OFF, ImplicitKind.REASKED), ()]
    assert read_rewards(connection) == {}


def test_a_damaged_row_of_our_version_is_an_error(store, connection):
    store.write_decisions([record(0)])
    with store.transaction("damage") as writing:
        writing.execute(text("UPDATE decisions SET record = replace(record, '\"replica\"', '\"other\"')"))
    with pytest.raises(StoreError, match="row d0 of the decision log is not a decision record"):
        list(read_records(connection, 0.0))


FAILED = {"state": TerminalState.UPSTREAM_ERROR, "served_expert": None, "status": 502}


@pytest.mark.parametrize(
    ("changes", "is_failure"),
    [
        ({}, False),
        (FAILED, True),
        (FAILED | {"status": 500, "error_code": "internal_error"}, True),  # the expert's own code
        (FAILED | {"status": 503, "error_code": "expert_unreachable"}, True),
        (FAILED | {"status": 504, "state": TerminalState.TIMED_OUT}, True),
        (FAILED | {"status": 429}, False),  # the provider's limit
        (FAILED | {"status": 503, "error_code": "expert_busy"}, False),
        (FAILED | {"failures": {"left": "expert_unreachable"}, "status": 429}, True),  # what the chosen one met counts
        (FAILED | {"failures": {"left": "expert_rate_limited"}}, False),
        ({"served_expert": "right", "failures": {"left": "context_length_exceeded"}}, False),
        ({"served_expert": "right", "failures": {"left": "expert_credentials"}}, False),
        ({"served_expert": "right", "failures": {"left": "expert_broken_answer"}}, True),
        (FAILED | {"status": 200, "served_expert": "left", "error_code": "expert_broken_answer"}, True),
        (FAILED | {"status": 400}, False),  # the request was at fault
        (FAILED | {"status": 404}, False),
        ({"state": TerminalState.CLIENT_GONE, "served_expert": None, "status": 499}, False),
        ({"state": TerminalState.REJECTED, "served_expert": None, "status": 429, "decision": None}, False),
        *((FAILED | {"status": 503, "error_code": code}, False) for code in sorted(OUR_FAULTS)),
    ],
)
def test_what_counts_as_a_failure_of_the_expert(changes, is_failure):
    assert has_failed(record(0, **changes)) is is_failure


def test_an_expert_that_the_client_named_is_not_judged():
    decision = record(0).decision.model_copy(update={"reason": DecisionReason.EXPLICIT})
    assert not has_failed(record(0, **FAILED, decision=decision))
