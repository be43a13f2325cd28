"""Spend on SQLite and Postgres is that of the decisions there are, whoever wrote or removed them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import select, update

from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord, TerminalState
from coe.decision_log.spend import SLOT_S, Spend, slots_of
from coe.decision_log.sql_removal import Removal
from coe.decision_log.tables.log import DecisionRow, SpendRow
from coe.router.prices.usage import READ, WRITTEN
from tests.decision_log.test_listing import TEAM, made

OWNERS = (f"{TEAM}/1", f"{TEAM}/2", f"{TEAM}x/1", None)
BEGIN = 1000.0
STEP_S = 100.0
SPANS = [(0.0, None), (BEGIN, None), (BEGIN + 250, BEGIN + 260), (BEGIN + 550, 1e300), (-1e300, 2 * SLOT_S)]
SPANS += [(9e9, None), (2.0 * SLOT_S, 4.0 * SLOT_S), (2.0 * SLOT_S + 0.5, 3.0 * SLOT_S - 0.5), (4000.0, BEGIN)]


def asked(seq: int) -> DecisionRecord:
    """A decision every STEP_S, by one owner after the other; costs add up exactly."""
    usage: dict[str, Any] = {"prompt_tokens": seq + 1, "completion_tokens": 2**30}
    if seq % 3:
        usage["kinds"] = {"cache_read": seq, "cache_read_audio": 1, "cache_write": 2, "cache_write_1h": seq}
    at, state = BEGIN + STEP_S * seq, TerminalState.REJECTED if seq % 7 == 3 else TerminalState.ANSWERED
    return made(seq, key_id=OWNERS[seq % len(OWNERS)], at=at, state=state, usage=usage, cost_usd=seq / 4)


def added(records: Iterable[DecisionRecord], tenant: str | None, since: float, until: float | None) -> set[Spend]:
    """The sums that the records of whole slots have but for those refused."""
    begin, end = since // SLOT_S, math.inf if until is None else math.ceil(until / SLOT_S) if until < 1e99 else math.inf
    found: dict[str | None, list[float]] = {}
    for each in records:
        team = (each.key_id or "").partition("/")[0]
        is_in = begin <= each.at // SLOT_S < end and tenant in (None, team)
        if is_in and each.state is not TerminalState.REJECTED:
            sums = found.setdefault(each.key_id, [0, 0, 0, 0, 0, 0.0])
            usage = each.usage
            tokens = (usage.prompt_tokens, usage.of(READ), usage.of(WRITTEN), usage.completion_tokens)
            values = (1, *tokens, each.cost_usd)
            found[each.key_id] = [one + other for one, other in zip(sums, values, strict=True)]
    return {
        Spend.model_validate(dict(zip(Spend.model_fields, (key, *sums), strict=True))) for key, sums in found.items()
    }


def check(store: Database, records: Iterable[DecisionRecord]) -> None:
    records = list(records)
    for tenant in (None, TEAM, "", "nobody"):
        for span in SPANS:
            assert found(store, tenant, *span) == added(records, tenant, *span), (tenant, span)


def found(store: Database, tenant: str | None, since: float, until: float | None) -> set[Spend]:
    return set(store.spend(tenant, slots_of(since, until)))


def test_spend_is_added_up_by_key(store: Database) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "kinds": {"cache_read": 7, "cache_write": 2}}
    spent = ((f"{TEAM}/1", 0.25), (f"{TEAM}/1", 0.5), ("other/1", 2.0), (None, 0.0))
    store.write_decisions([made(i, key_id=key, cost_usd=cost, usage=usage) for i, (key, cost) in enumerate(spent)])
    store.write_decisions([made(4, key_id=f"{TEAM}/1", state=TerminalState.REJECTED, status=429)])
    tokens = {"prompt_tokens": 20, "cached_tokens": 14, "cache_write_tokens": 4, "completion_tokens": 6}
    mine = Spend(key_id=f"{TEAM}/1", requests=2, cost_usd=0.75, **tokens)
    ever = slots_of(0.0, None)
    assert store.spend(TEAM, ever) == (mine,)
    assert [row.key_id for row in store.spend(None, ever)] == ["other/1", f"{TEAM}/1", None]
    assert slots_of(1000.0, 1800.0) == slots_of(900.0, 901.0) == range(1, 2)


def test_sums_are_those_of_the_decisions_in_any_time(store: Database) -> None:
    records = [asked(seq) for seq in range(24)]
    store.write_decisions(records[8:16])
    store.write_decisions(records[:8])  # late
    store.write_decisions(records[16:])
    check(store, records)


def test_decisions_that_arrive_again_count_once(store: Database) -> None:
    records = [asked(seq) for seq in range(16)]
    store.write_decisions(records[:8])
    store.write_decisions(records[4:12])
    check(store, records[:12])
    store.write_decisions(records)
    check(store, records)


def test_what_is_removed_counts_no_more_and_leaves_no_name_of_a_key(store: Database) -> None:
    records = [asked(seq) for seq in range(16)]
    store.write_decisions(records)
    Removal(store).erase([f"{TEAM}/1"], BEGIN + 7 * STEP_S)
    left = [each for each in records if each.key_id != f"{TEAM}/1" or each.at > BEGIN + 7 * STEP_S]
    check(store, left)
    store.write_decisions([*records[:8], *(made(100 + seq, at=BEGIN + STEP_S * seq) for seq in (0, 4))])
    left += [made(100 + seq, at=BEGIN + STEP_S * seq) for seq in (0, 4) if seq > 7]
    Removal(store).prune(BEGIN + 5 * STEP_S, BEGIN)
    check(store, [each for each in left if each.at >= BEGIN + 5 * STEP_S])
    Removal(store).prune(9e9, BEGIN)
    assert store.rows("read sums", select(SpendRow)) == []


def test_several_that_write_the_same_at_once_count_it_once(store: Database) -> None:
    records = [asked(seq) for seq in range(32)]
    with ThreadPoolExecutor(4) as threads:
        new = threads.map(lambda first: store.write_decisions(records[first : first + 17]), (0, 5, 10, 15, 0, 7))
        assert sum(new) == 32
    check(store, records)


def test_no_decision_is_read(store: Database) -> None:
    records = [asked(seq) for seq in range(24)]
    store.write_decisions(records)
    with store.transaction("spoil") as connection:
        connection.execute(update(DecisionRow).values(record="{"))
    check(store, records)


def test_a_decision_of_an_impossible_time_counts_at_the_end_of_times(store: Database) -> None:
    store.write_decisions([made(0, at=1e300), made(1, at=-5.0), made(2)])
    assert [row.requests for row in store.spend(None, slots_of(0.0, None))] == [3]
    assert [row.requests for row in store.spend(None, slots_of(900.0, 1e9))] == [1]
