from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.decision_log import removal as removal_module
from gateway.decision_log.ledger import Ledger
from gateway.decision_log.life import Life, LifeState
from gateway.decision_log.removal import Removal, Removed, is_of
from gateway.erasure import subject_hash
from gateway.store import Store
from gateway.tables import TABLES
from router.types import DecisionRecord, Feedback, FeedbackKind

MakeRecord = Callable[..., DecisionRecord]
AT = 1_700_000_000.25  # when make_record's number 0 was made; number n is n seconds later
LATER = AT + 1000.0


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'coe.db'}" if is_sqlite else str(request.getfixturevalue("postgres_url"))
    opened = Store(url)
    with opened.transaction("empty") as connection:
        for table in TABLES:
            connection.execute(table.delete())
    yield opened
    opened.close()


@pytest.fixture
def make_of(make_record: MakeRecord) -> Callable[..., DecisionRecord]:
    """A record with what it can be found by."""

    def make(seq: int, replica: str = "r1", **subject: str) -> DecisionRecord:
        return make_record(seq, replica).model_copy(update=subject)

    return make


def thumb(decision_id: str, key_id: str | None = None, at: float = AT) -> Feedback:
    return Feedback(decision_id=decision_id, kind=FeedbackKind.THUMB, value=1.0, at=at, key_id=key_id)


def ids(store: Store, count: int, replica: str = "r1") -> list[int]:
    return [seq for seq in range(count) if store.get_decision(f"{replica}-{seq}") is not None]


@pytest.mark.parametrize("field", ["key_id", "session_id", "text_hash"])
def test_a_subject_is_erased_by_any_of_its_ids_and_leaves_no_gap(
    field: str, store: Store, make_of: Callable[..., DecisionRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal_module, "BATCH_ROWS", 2)
    mine, others = {field: "100%_me"}, {field: "100x_me"}
    store.write_decisions([make_of(seq, **(mine if seq in (1, 2, 3, 5, 6) else others)) for seq in range(8)])
    for decision_id in ("r1-1", "r1-4"):
        store.put_feedback(thumb(decision_id))
    removal = Removal(store)
    assert removal.erase({"100%_me"}, LATER) == Removed(decisions=5, feedback=1)
    assert ids(store, 8) == [0, 4, 7]
    assert (store.get_feedback("r1-1"), len(store.get_feedback("r1-4"))) == ((), 1)
    [account] = Ledger(store).accounts()
    assert (account.decisions, account.rows) == (8, 3)
    assert sorted(seq for each in account.removed for seq in each) == [1, 2, 3, 5, 6]
    assert removal.erase({"100%_me"}, LATER) == Removed()


def test_what_was_erased_cannot_come_back_but_what_is_new_can(
    store: Store, make_of: Callable[..., DecisionRecord]
) -> None:
    late, new = make_of(0, key_id="k"), make_of(1, key_id="k").model_copy(update={"at": LATER + 1})
    Removal(store).erase({"k"}, LATER)
    assert store.write_decisions([late, new, make_of(2, key_id="other")]) == 2
    assert ids(store, 3) == [1, 2]
    [account] = Ledger(store).accounts()
    assert (account.decisions, account.rows, account.removed) == (3, 2, [range(1)])


def test_feedback_that_the_subject_gave_goes_too(store: Store, make_of: Callable[..., DecisionRecord]) -> None:
    store.write_decisions([make_of(0)])
    store.put_feedback(thumb("r1-0", key_id="k"))
    store.put_feedback(thumb("r1-0", key_id="other"))
    assert Removal(store).erase({"k"}, LATER) == Removed(feedback=1)
    assert [kept.key_id for kept in store.get_feedback("r1-0")] == ["other"]


def test_the_database_keeps_a_hash_of_whom_it_erased(store: Store) -> None:
    removal = Removal(store)
    removal.erase({"k"}, LATER)
    assert removal.erased_since(LATER - 1) == {subject_hash("k"): LATER}
    assert removal.erased_since(LATER) == {}
    removal.erase({"k"}, LATER + 5)
    removal.erase({"k"}, LATER)  # again, by a clock that is behind
    assert removal.erased_since(LATER) == {subject_hash("k"): LATER + 5}


def test_prune_removes_what_is_older_with_its_feedback_and_leaves_no_gap(
    store: Store, make_of: Callable[..., DecisionRecord], monkeypatch: pytest.MonkeyPatch
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


def test_a_replica_that_is_over_and_empty_is_forgotten(store: Store, make_of: Callable[..., DecisionRecord]) -> None:
    ledger = Ledger(store)
    store.write_decisions([make_of(seq, replica) for replica in ("over", "alive", "lossy") for seq in range(2)])
    ledger.note_lives(
        [
            Life(replica="over", decisions=2, state=LifeState.ENDED, at=AT),
            Life(replica="alive", decisions=2, state=LifeState.RUNNING, at=AT),
            Life(replica="lossy", decisions=3, state=LifeState.KILLED, at=AT),
        ]
    )
    Removal(store).prune(LATER, LATER)
    assert [account.replica for account in ledger.accounts()] == ["alive", "lossy"]


@pytest.mark.parametrize("record", [b"no json", b"[]", b"{}", b'{"key_id":"k","at":"soon"}', b'{"key_id":"k","at":2}'])
def test_what_is_not_of_a_subject(record: bytes) -> None:
    assert is_of(record, {"k"}, until=1.0) is None
