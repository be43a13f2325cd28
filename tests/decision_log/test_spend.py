"""Spend on SQLite and Postgres is that of the decisions there are, whoever wrote or removed them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import delete, event, func, select, update

from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord, TerminalState
from coe.decision_log.housekeeping import Housekeeper
from coe.decision_log.spend import SLOT_S, Spend
from coe.decision_log.sql_removal import Removal
from coe.decision_log.tables import DECISIONS, SPEND
from coe.router.usage import READ, WRITTEN
from tests.decision_log.test_listing import TEAM, made

OWNERS = (f"{TEAM}/1", f"{TEAM}/2", f"{TEAM}x/1", None)
BEGIN = 1000.0
STEP_S = 100.0
SPANS = [
    (0.0, None),
    (BEGIN, None),
    (BEGIN + 250, BEGIN + 260),
    (BEGIN + 550, 1e300),
    (-1e300, 2 * SLOT_S),
    (9e9, None),
]
SPANS += [(2.0 * SLOT_S, 4.0 * SLOT_S), (2.0 * SLOT_S + 0.5, 3.0 * SLOT_S - 0.5), (BEGIN + 300, BEGIN)]


def asked(seq: int) -> DecisionRecord:
    """A decision every STEP_S, by one owner after the other; costs add up exactly."""
    usage: dict[str, Any] = {"prompt_tokens": seq + 1, "completion_tokens": 2**30}
    if seq % 3:
        usage["kinds"] = {"cache_read": seq, "cache_read_audio": 1, "cache_write": 2, "cache_write_1h": seq}
    at, state = BEGIN + STEP_S * seq, TerminalState.REJECTED if seq % 7 == 3 else TerminalState.ANSWERED
    return made(seq, key_id=OWNERS[seq % len(OWNERS)], at=at, state=state, usage=usage, cost_usd=seq / 4)


def added(records: Iterable[DecisionRecord], tenant: str | None, since: float, until: float | None) -> set[Spend]:
    """The sums that the records have but for those refused."""
    found: dict[str | None, list[float]] = {}
    for each in records:
        team = (each.key_id or "").partition("/")[0]
        is_in = since <= each.at and (until is None or each.at < until) and tenant in (None, team)
        if is_in and each.state is not TerminalState.REJECTED:
            sums = found.setdefault(each.key_id, [0, 0, 0, 0, 0, 0.0])
            usage = each.usage
            tokens = (usage.prompt_tokens, usage.of(READ), usage.of(WRITTEN), usage.completion_tokens)
            values = (1, *tokens, each.cost_usd)
            found[each.key_id] = [one + other for one, other in zip(sums, values, strict=True)]
    return {
        Spend.model_validate(dict(zip(Spend.model_fields, (key, *sums), strict=True))) for key, sums in found.items()
    }


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.decision_log.database.LOOK_S", math.inf)  # however busy the machine is


def check(store: Database, records: Iterable[DecisionRecord]) -> None:
    records = list(records)
    for tenant in (None, TEAM, "", "nobody"):
        for span in SPANS:
            assert found(store, tenant, *span) == added(records, tenant, *span), (tenant, span)


def found(store: Database, tenant: str | None, since: float, until: float | None) -> set[Spend]:
    rows, looked_back_to = store.spend(tenant, since, until)
    assert looked_back_to is None
    return set(rows)


def test_spend_is_added_up_by_key(store: Database) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "kinds": {"cache_read": 7, "cache_write": 2}}
    spent = ((f"{TEAM}/1", 0.25), (f"{TEAM}/1", 0.5), ("other/1", 2.0), (None, 0.0))
    store.write_decisions([made(i, key_id=key, cost_usd=cost, usage=usage) for i, (key, cost) in enumerate(spent)])
    store.write_decisions([made(4, key_id=f"{TEAM}/1", state=TerminalState.REJECTED, status=429)])
    tokens = {"prompt_tokens": 20, "cached_tokens": 14, "cache_write_tokens": 4, "completion_tokens": 6}
    mine = Spend(key_id=f"{TEAM}/1", requests=2, cost_usd=0.75, **tokens)
    assert store.spend(TEAM, 0.0, None) == ((mine,), None)
    assert [row.key_id for row in store.spend(None, 0.0, None)[0]] == ["other/1", f"{TEAM}/1", None]
    assert [row.requests for row in store.spend(None, 1001.0, 1003.0)[0]] == [1, 1]


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


def test_what_is_removed_counts_no_more_also_where_as_much_came(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [asked(seq) for seq in range(16)]
    store.write_decisions(records)
    Removal(store).erase([f"{TEAM}/1"], BEGIN + 7 * STEP_S)
    left = [each for each in records if each.key_id != f"{TEAM}/1" or each.at > BEGIN + 7 * STEP_S]
    monkeypatch.setattr("coe.decision_log.database.add_spend", lambda *_: None)  # another version of coe writes
    late = [made(100 + seq, key_id="late/1", at=BEGIN + STEP_S * seq) for seq in (0, 4)]
    store.write_decisions(late)
    check(store, [*left, *late])
    Removal(store).prune(BEGIN + 5 * STEP_S, BEGIN)
    check(store, [each for each in (*left, *late) if each.at >= BEGIN + 5 * STEP_S])


def test_sums_that_are_missing_or_too_many_are_made_again(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.decision_log.spend.ROWS_AT_ONCE", 3)
    records = [asked(seq) for seq in range(24)]
    store.write_decisions(records)
    with store.transaction("lose the sums") as connection:
        connection.execute(delete(SPEND))
    check(store, records)
    with store.transaction("lose decisions") as connection:
        connection.execute(delete(DECISIONS).where(DECISIONS.c.at < BEGIN + 9 * STEP_S))
    check(store, records[9:])


async def test_what_no_sum_counts_is_left_out_until_the_housekeeping_has_added_it_up(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.decision_log.spend.ROWS_AT_ONCE", 3)
    monkeypatch.setattr("coe.decision_log.database.LOOK_S", 0.0)
    records = [asked(seq) for seq in range(24)]
    store.write_decisions(records)
    with store.transaction("lose a sum") as connection:
        connection.execute(delete(SPEND).where(SPEND.c.slot == 4))
    rows, looked_back_to = store.spend(None, BEGIN, None)
    assert looked_back_to == 5.0 * SLOT_S
    assert set(rows) == added(records, None, looked_back_to, None)
    await Housekeeper(store, None, keep_days=None).look()
    check(store, records)


def test_sums_that_several_make_at_once_and_somebody_gives_up_are_right(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where others write, what came before is sent again, and a subject is erased in between."""
    monkeypatch.setattr("coe.decision_log.spend.ROWS_AT_ONCE", 3)
    records = [asked(seq) for seq in range(32)]
    store.write_decisions(records[:24])
    with store.transaction("lose the sums") as connection:
        connection.execute(delete(SPEND))
    one, other, given_up = store.add_up(), store.add_up(), store.add_up()
    steps = [next(each) for each in (one, given_up, other, one, given_up, other, one)]
    assert len(set(steps)) == 3
    store.write_decisions(records[20:28])
    next(other)
    Removal(store).erase([f"{TEAM}/1"], BEGIN + 20 * STEP_S)
    next(one)
    store.write_decisions(records[28:])
    assert [len(list(each)) > 0 for each in (one, other)] == [True, True]
    check(store, [each for each in records if each.key_id != f"{TEAM}/1" or each.at > BEGIN + 20 * STEP_S])


def test_no_decision_of_a_whole_slot_is_read(store: Database) -> None:
    """Records that nobody could read do not matter; and a second look changes nothing."""
    records = [asked(seq) for seq in range(24)]
    store.write_decisions(records[:20])
    with store.transaction("spoil") as connection:
        connection.execute(delete(SPEND).where(SPEND.c.slot > 3))
    check(store, records[:20])
    store.write_decisions(records[20:])
    with store.transaction("spoil") as connection:
        connection.execute(update(DECISIONS).values(record="{"))
    changes = []
    event.listen(store._engine, "after_cursor_execute", lambda *each: changes.append(each[2].split()[0]))
    for span in ((0.0, None), (2.0 * SLOT_S, 4.0 * SLOT_S)):
        assert found(store, None, *span) == added(records, None, *span)
    assert changes == ["SELECT", "SELECT"] * 2


def test_a_decision_of_an_impossible_time_is_kept_and_not_counted(store: Database) -> None:
    store.write_decisions([made(0, at=1e300), made(1, at=-5.0), made(2)])
    assert [row.requests for row in store.spend(None, 0.0, None)[0]] == [1]
    with store.transaction("count") as connection:
        assert connection.execute(select(func.count()).select_from(SPEND)).scalar_one() == 1
    assert store.count() == 3
