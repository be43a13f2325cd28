from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest
from sqlalchemy import select
from sqlmodel import col

from coe.decision_log import sql_removal as removal_module
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.feedback_types import DocumentFeedback, Feedback, FeedbackKind, FeedbackStatus
from coe.decision_log.ledger import Ledger
from coe.decision_log.replica_status import ReplicaState, ReplicaStatus
from coe.decision_log.sql_removal import Removal, Removed, found_of
from coe.decision_log.tables.log import DocumentFeedbackRow, ErasureRow
from coe.decision_log.tombstones import subject_hash
from coe.router.config.feedback import FeedbackConfig
from tests.decision_log.running_log import make_record

AT = 1_700_000_000.25  # when make_record's number 0 was made; number n is n seconds later
LATER = AT + 1000.0


@pytest.fixture
def make_of() -> Callable[..., DecisionRecord]:
    """A record with what it can be found by."""

    def make(seq: int, replica: str = "r1", **subject: str) -> DecisionRecord:
        return make_record(seq, replica).model_copy(update=subject)

    return make


def thumb(decision_id: str, key_id: str | None = None, at: float = AT) -> Feedback:
    return Feedback(decision_id=decision_id, kind=FeedbackKind.THUMB, value=1.0, at=at, key_id=key_id)


def ids(store: Database, count: int, replica: str = "r1") -> list[int]:
    return [seq for seq in range(count) if store.get_decision(f"{replica}-{seq}") is not None]


@pytest.mark.parametrize("field", ["key_id", "session_id", "text_hash"])
def test_a_subject_is_erased_by_any_of_its_ids_and_leaves_no_gap(
    field: str, store: Database, make_of: Callable[..., DecisionRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal_module, "BATCH_ROWS", 2)
    mine, others = {field: "100%_me"}, {field: "100x_me"}
    store.write_decisions([make_of(seq, **(mine if seq in (1, 2, 3, 5, 6) else others)) for seq in range(8)])
    for decision_id in ("r1-1", "r1-4"):
        store.put_feedback(thumb(decision_id))
    removal, look = Removal(store), Mock(wraps=Removal(store).decisions_of)
    monkeypatch.setattr(removal, "decisions_of", look)
    assert removal.erase({"100%_me"}, LATER) == Removed(decisions=5, feedback=1)
    look.assert_called_once()  # it reads the whole table
    assert ids(store, 8) == [0, 4, 7]
    assert (store.get_feedback("r1-1"), len(store.get_feedback("r1-4"))) == ((), 1)
    [account] = Ledger(store).accounts()
    assert (account.decisions, account.rows) == (8, 3)
    assert sorted(seq for each in account.removed for seq in each) == [1, 2, 3, 5, 6]
    assert removal.erase({"100%_me"}, LATER) == Removed()


def test_what_was_erased_cannot_come_back_but_what_is_new_can(
    store: Database, make_of: Callable[..., DecisionRecord]
) -> None:
    late, new = make_of(0, key_id="k"), make_of(1, key_id="k").model_copy(update={"at": LATER + 1})
    Removal(store).erase({"k"}, LATER)
    assert store.write_decisions([late, new, make_of(2, key_id="other")]) == 2
    assert ids(store, 3) == [1, 2]
    [account] = Ledger(store).accounts()
    assert (account.decisions, account.rows, account.removed) == (3, 2, [range(1)])


def test_feedback_on_an_erased_decision_is_refused(store: Database, make_of: Callable[..., DecisionRecord]) -> None:
    """A gateway shows a decision from memory for some seconds after it was erased, or longer when it ended late."""
    erased, new = make_of(0, key_id="k"), make_of(1, key_id="k").model_copy(update={"at": LATER + 1})
    store.write_decisions([erased, new])
    Removal(store).erase({"k"}, LATER)
    at, caps = LATER + 2, FeedbackConfig()
    said = thumb(erased.decision_id).model_copy(update={"at": at})
    assert store.put_feedback(said, caps, erased) is FeedbackStatus.ERASED
    seen = DocumentFeedback(decision_id=erased.decision_id, document_id="d", value=1.0, at=at)
    assert store.put_feedback(seen, caps, erased) is FeedbackStatus.ERASED
    assert (store.get_feedback(erased.decision_id), documents(store)) == ((), [])
    assert store.put_feedback(thumb(new.decision_id), caps, new) is FeedbackStatus.ACCEPTED


def documents(store: Database) -> list[str]:
    with store.transaction("read") as connection:
        return list(connection.execute(select(col(DocumentFeedbackRow.decision_id))).scalars())


def test_feedback_goes_with_a_decision_that_comes_after_it_was_erased(
    store: Database, make_of: Callable[..., DecisionRecord]
) -> None:
    """Feedback on a decision may reach the database before it."""
    late, kept = make_of(0, session_id="s"), make_of(1, session_id="other")
    for record in (late, kept):
        store.put_feedback(thumb(record.decision_id))
        store.put_feedback(DocumentFeedback(decision_id=record.decision_id, document_id="d", value=1.0, at=AT))
    Removal(store).erase({"s"}, LATER)
    assert store.write_decisions([late, kept]) == 1
    assert (store.get_feedback(late.decision_id), documents(store)) == ((), [kept.decision_id])
    assert len(store.get_feedback(kept.decision_id)) == 1


def test_feedback_that_the_subject_gave_goes_too(store: Database, make_of: Callable[..., DecisionRecord]) -> None:
    store.write_decisions([make_of(0)])
    store.put_feedback(thumb("r1-0", key_id="k"))
    store.put_feedback(thumb("r1-0", key_id="other"))
    assert Removal(store).erase({"k"}, LATER) == Removed(feedback=1)
    assert [kept.key_id for kept in store.get_feedback("r1-0")] == ["other"]


def test_the_database_keeps_a_hash_of_whom_it_erased(store: Database) -> None:
    removal = Removal(store)
    removal.erase({"k"}, LATER)
    removal.erase({"k"}, LATER + 5)
    removal.erase({"k"}, LATER)  # again, by a clock that is behind
    assert store.rows("look", select(ErasureRow)) == [(subject_hash("k"), LATER + 5)]


def test_prune_removes_what_is_older_with_its_feedback_and_leaves_no_gap(
    store: Database, make_of: Callable[..., DecisionRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal_module, "BATCH_ROWS", 2)
    store.write_decisions([make_of(seq) for seq in range(6)])
    for decision_id in ("r1-0", "r1-5", "gone-before"):
        store.put_feedback(thumb(decision_id))
    removal = Removal(store)
    assert removal.prune(AT + 3, LATER) == Removed(decisions=3, feedback=2)
    assert ids(store, 6) == [3, 4, 5]
    [account] = Ledger(store).accounts()
    assert (account.decisions, account.rows, account.removed) == (6, 3, [range(3)])
    assert removal.prune(AT + 3, LATER) == Removed()


def test_a_replica_that_is_over_and_empty_is_forgotten(store: Database, make_of: Callable[..., DecisionRecord]) -> None:
    ledger = Ledger(store)
    store.write_decisions([make_of(seq, replica) for replica in ("over", "alive", "lossy") for seq in range(2)])
    ledger.note_replicas(
        [
            ReplicaStatus(replica="over", decisions=2, state=ReplicaState.ENDED, at=AT),
            ReplicaStatus(replica="alive", decisions=2, state=ReplicaState.RUNNING, at=AT),
            ReplicaStatus(replica="lossy", decisions=3, state=ReplicaState.KILLED, at=AT),
        ]
    )
    Removal(store).prune(LATER, LATER)
    assert [account.replica for account in ledger.accounts()] == ["alive", "lossy"]


@pytest.mark.parametrize("record", [b"no json", b"[]", b"{}", b'{"key_id":"k","at":"soon"}', b'{"key_id":"k","at":2}'])
def test_what_is_not_of_a_subject(record: bytes) -> None:
    assert found_of(record, {"k"}, until=1.0) is None
