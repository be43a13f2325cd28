from __future__ import annotations

import pytest

from coe.decision_log import ledger as ledger_module
from coe.decision_log.database import Database
from coe.decision_log.ledger import Account, Ledger
from coe.decision_log.replica_status import ReplicaState, ReplicaStatus
from coe.decision_log.sql_removal import Found, Removal
from tests.decision_log.running_log import make_record


def status(
    decisions: int, state: ReplicaState = ReplicaState.RUNNING, at: float = 1.0, replica: str = "r1"
) -> ReplicaStatus:
    return ReplicaStatus(replica=replica, decisions=decisions, settled=decisions // 2, state=state, at=at)


def test_accounts_have_rows_holes_and_repeats(store: Database) -> None:
    store.write_decisions([make_record(seq) for seq in (0, 1, 4)])
    store.write_decisions([make_record(0, "r2"), make_record(0, "r2").model_copy(update={"decision_id": "again"})])
    ledger = Ledger(store)
    r1, r2 = ledger.accounts()
    assert r1 == Account("r1", None, 3, [range(0, 2), range(4, 5)])
    assert (r1.decisions, r1.duplicates) == (5, 0)
    assert (r2.decisions, r2.rows, r2.duplicates) == (1, 2, 1)


def test_a_life_counts_further_than_its_rows(store: Database) -> None:
    store.write_decisions([make_record(0)])
    ledger = Ledger(store)
    ledger.note_replicas([status(7), status(0, replica="r2")])
    r1, r2 = ledger.accounts()
    assert (r1.status, r1.decisions) == (status(7), 7)
    assert (r2.status, r2.rows, r2.decisions) == (status(0, replica="r2"), 0, 0)


@pytest.mark.parametrize("is_late", [False, True])
def test_what_was_heard_of_a_life_may_come_twice_and_in_any_order(store: Database, is_late: bool) -> None:
    heard = [status(3, at=1.0), status(5, at=2.0), status(5, ReplicaState.KILLED, at=3.0)]
    ledger = Ledger(store)
    for each in reversed(heard) if is_late else heard:
        ledger.note_replicas([each, each])
    assert [account.status for account in ledger.accounts()] == [status(5, ReplicaState.KILLED, at=3.0)]


def test_removed_numbers_are_no_gap(store: Database) -> None:
    store.write_decisions([make_record(0)])
    ledger = Ledger(store)
    for _ in range(2):
        gone = [Found("b", "r1", 2), Found("a", "r1", 1), Found("c", "r2", 0)]
        Removal(store).remove(gone, reason="erased", at=1.0)
    r1, r2 = ledger.accounts()
    assert (r1.written, r1.removed, r1.decisions) == ([range(1)], [range(1, 3)], 3)
    assert (r2.removed, r2.rows) == ([range(1)], 0)


def test_what_is_removed_while_it_is_counted_is_no_gap(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_decisions([make_record(0), make_record(1)])
    ledger, islands = Ledger(store), ledger_module.islands
    ledger.note_replicas([status(2, ReplicaState.ENDED)])
    before = ledger.accounts()

    def later() -> object:
        monkeypatch.undo()
        Removal(store).prune(make_record(1).at + 1, at=1.0)
        return islands()

    monkeypatch.setattr(ledger_module, "islands", later)
    assert ledger.accounts() == before
    assert ledger.accounts() == []
