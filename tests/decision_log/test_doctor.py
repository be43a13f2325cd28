from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from coe.decision_log.consumer import Consumer
from coe.decision_log.database import Database
from coe.decision_log.doctor import SILENT_S, Diagnosis, Finding, assess, diagnose
from coe.decision_log.ledger import Account
from coe.decision_log.redis_client import connect
from coe.decision_log.replica_status import DecisionCount, ReplicaState, ReplicaStatus
from coe.decision_log.spool import Spool
from coe.decision_log.stream import GROUP
from coe.decision_log.stream_entries import dead_stream
from tests.decision_log.running_log import make_record

STREAM = "coe:decisions"
NOW = 1_000_000.0


def status(decisions: int, state: ReplicaState, at: float = NOW, settled: int = 0) -> ReplicaStatus:
    return ReplicaStatus(replica="r", decisions=decisions, settled=settled, state=state, at=at)


def account(*written: range, heard: ReplicaStatus | None = None, removed: tuple[range, ...] = ()) -> Account:
    return Account("r", heard, sum(map(len, written)), list(written), list(removed))


@pytest.mark.parametrize("state", [ReplicaState.KILLED, ReplicaState.ENDED])
def test_a_loss_at_the_very_end_of_a_life_is_seen(state: ReplicaState) -> None:
    found = assess(account(range(5), heard=status(8, state)), None, set(), NOW)
    assert (found.decisions, found.lost, found.unsettled) == (8, (range(5, 8),), 0)


def test_the_count_on_this_machine_is_believed_before_that_in_sql() -> None:
    found = assess(account(range(5), heard=status(5, ReplicaState.RUNNING)), status(9, ReplicaState.KILLED), set(), NOW)
    assert found.lost == (range(5, 9),)


def test_what_is_on_its_way_is_not_lost() -> None:
    found = assess(account(range(3), heard=status(8, ReplicaState.KILLED)), None, {4, 5, 7}, NOW)
    assert found.lost == (range(3, 4), range(6, 7))


def test_what_was_removed_on_purpose_is_not_lost() -> None:
    found = assess(account(range(3), removed=(range(3, 6),), heard=status(6, ReplicaState.ENDED)), None, set(), NOW)
    assert (found.lost, found.removed, found.decisions) == ((), 3, 6)


def test_what_a_gateway_at_work_has_not_settled_is_not_lost_but_a_hole_before_is() -> None:
    """SQL has 0, 1, 4, 5 and 7; 3 went through memory and is nowhere, 2 is with a client that reads slowly."""
    running = status(9, ReplicaState.RUNNING, settled=2)
    found = assess(account(range(2), range(4, 6), range(7, 8)), running, {6}, NOW)
    assert (found.lost, found.unsettled, found.decisions) == ((), 3, 9)
    later = status(9, ReplicaState.RUNNING, settled=8)
    found = assess(account(range(2), range(4, 6), range(7, 8)), later, {6}, NOW)
    assert (found.lost, found.unsettled) == ((range(2, 4),), 1)


def test_of_a_gateway_elsewhere_a_hole_is_proved_by_a_number_given_after_it_was_heard_of() -> None:
    heard = status(6, ReplicaState.RUNNING, settled=5)
    found = assess(account(range(2), range(4, 6), heard=heard), None, set(), NOW)
    assert (found.lost, found.unsettled) == ((), 2)
    found = assess(account(range(2), range(4, 5), range(6, 7), heard=heard), None, set(), NOW)
    assert (found.lost, found.unsettled) == ((range(2, 4),), 1)


def test_rows_younger_than_the_count_that_was_read_prove_no_hole() -> None:
    """Between 5 and 7 a decision may have gone from memory to spool after the spool was looked at."""
    found = assess(account(range(5), range(7, 8)), status(5, ReplicaState.RUNNING, settled=5), set(), NOW)
    assert (found.lost, found.unsettled, found.decisions) == ((), 2, 8)


def test_a_replica_that_fell_silent_elsewhere_is_named() -> None:
    heard = status(5, ReplicaState.RUNNING, at=NOW - SILENT_S - 1)
    silent = assess(account(range(5), heard=heard), None, set(), NOW)
    assert silent.silent_since == heard.at
    here = assess(account(range(5), heard=heard), status(5, ReplicaState.RUNNING), set(), NOW)
    assert here.silent_since is None
    assert not Diagnosis((silent,), 0, 0, 0).is_healthy


def test_a_replica_nobody_counted_is_as_long_as_its_rows() -> None:
    assert assess(account(range(2), range(3, 4)), None, set(), NOW) == Finding("r", None, 4, 3, 0, 0, (range(2, 3),))


async def test_every_place_is_looked_at(tmp_path: Path, redis_url: str) -> None:
    """SQL has 0 and 1, a dead letter is 2, 3 is pending, 4 not delivered, 5 in the spool, 6 and 7 nowhere."""
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    spool = Spool(tmp_path / "spool" / "r1", max_bytes=1_000_000)
    spool.open()
    numbered = DecisionCount()
    numbered.open(spool.folder)
    for _ in range(8):
        numbered.take()
    spool.write([make_record(5).model_dump_json().encode()])
    spool.close()
    client = connect(redis_url)
    with Redis.from_url(redis_url) as adding:
        for seq in (0, 1):
            adding.xadd(STREAM, {"record": make_record(seq).model_dump_json()})
        consumer = Consumer(redis_url=redis_url, stream=STREAM, database=store, name="c")
        await consumer.drain()
        await consumer.aclose()
        adding.xadd(dead_stream(STREAM), {"record": make_record(2).model_dump_json()})
        adding.xadd(STREAM, {"record": make_record(3).model_dump_json()})
        adding.xreadgroup(GROUP, "busy", {STREAM: ">"})
        adding.xadd(STREAM, {"record": make_record(4).model_dump_json()})
    found = await diagnose(tmp_path / "spool", client, STREAM, store, NOW)
    [finding] = found.findings
    assert (finding.decisions, finding.rows, finding.lost) == (8, 2, (range(6, 8),))
    assert (found.in_spool, found.in_stream, found.dead) == (1, 2, 1)
    assert (found.gaps, found.lost, found.is_healthy) == (1, 2, False)
    numbered.close()
    await client.aclose()
    store.close()
