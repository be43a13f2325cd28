"""Requests, tokens and cost by key, summed per quarter of an hour, so that reports need not read every decision.

A transaction that writes or deletes decisions also updates the sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlmodel import col

from coe.decision_log.decision_record import TerminalState
from coe.decision_log.payloads import RecordPart
from coe.decision_log.tables.log import DecisionRow, SpendRow
from coe.router.prices.usage import READ, WRITTEN
from coe.router.types import Record

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


SLOT_S = 900
"""Seconds of one sum; days begin with one in every time zone."""

LATEST_S = 1e11
"""Unix time (s) that later decisions are counted under."""


class Spend(Record):
    """Sums over the requests of one key, or of clients without one (None).

    Requests that were rejected before an expert was called are not counted. Providers read `cached_tokens` of the
    prompt tokens from their caches, and wrote `cache_write_tokens` to them.
    """

    key_id: str | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    completion_tokens: int
    cost_usd: float


SUMS = tuple(name for name in Spend.model_fields if name != "key_id")


def slot_at(at: float) -> int:
    """Return the slot of a Unix time, divided as SQL divides."""
    return int(min(max(at, 0.0), LATEST_S) / SLOT_S)


def slots_of(since: float, until: float | None) -> range:
    """Return the slots that overlap since <= at < until (Unix seconds)."""
    end = LATEST_S + SLOT_S if until is None else min(max(until, 0.0), LATEST_S + SLOT_S)
    return range(slot_at(since), ceil(end / SLOT_S))


def add_spend(connection: Connection, dialect_insert: Any, records: Iterable[RecordPart], sign: int = 1) -> None:
    """Add written decisions to the sums, or subtract deleted ones (`sign` -1)."""
    found: dict[tuple[int, str], tuple[float, ...]] = {}
    for record in records:
        key, usage = (slot_at(record.at), record.key_id or ""), record.usage
        tokens = (usage.prompt_tokens, usage.of(READ), usage.of(WRITTEN), usage.completion_tokens)
        values = (0,) * len(SUMS) if record.state == TerminalState.REJECTED else (1, *tokens, record.cost_usd)
        sums = found.get(key, (0,) * (1 + len(SUMS)))
        found[key] = tuple(old + sign * value for old, value in zip(sums, (1, *values), strict=True))
    new = dialect_insert(SpendRow.__table__)
    added = {name: SpendRow.__table__.c[name] + new.excluded[name] for name in ("decisions", *SUMS)}
    # In this order, so that no two writers wait for each other.
    rows = [dict(zip(SpendRow.__table__.c.keys(), (*key, *sums), strict=True)) for key, sums in sorted(found.items())]
    if rows:
        connection.execute(new.on_conflict_do_update(index_elements=["slot", "key_id"], set_=added), rows)


def forget_spend(connection: Connection, dialect_insert: Any, decision_ids: Iterable[str]) -> None:
    """Subtract decisions that will be deleted from the sums."""
    lines = connection.scalars(select(col(DecisionRow.record)).where(col(DecisionRow.decision_id).in_(decision_ids)))
    gone = [RecordPart.model_validate_json(line) for line in lines]
    add_spend(connection, dialect_insert, gone, sign=-1)
    slots = {slot_at(record.at) for record in gone}
    connection.execute(
        delete(SpendRow).where(col(SpendRow.slot).in_(slots), col(SpendRow.decisions) <= 0)
    )  # also names of keys


def spend_by_key(connection: Connection, tenant: str | None, slots: range) -> tuple[Spend, ...]:
    """Return the sums by key over some slots, most expensive first; of every team if `tenant` is None."""
    sums = [func.sum(SpendRow.__table__.c[name]) for name in SUMS]
    within = (col(SpendRow.slot) >= slots.start, col(SpendRow.slot) < slots.stop)
    query = select(col(SpendRow.key_id), *sums).where(*within).group_by(col(SpendRow.key_id))
    if tenant is not None:
        query = query.where(is_of(func.nullif(col(SpendRow.key_id), ""), tenant))
    rows = connection.execute(query.having(func.sum(col(SpendRow.requests)) > 0)).all()
    named = (dict(zip(Spend.model_fields, row, strict=True)) for row in rows)
    spends = (Spend.model_validate({**row, "key_id": row["key_id"] or None}) for row in named)
    return tuple(sorted(spends, key=lambda spend: (-spend.cost_usd, -spend.requests)))


def is_of(key_id: ColumnElement[str], tenant: str) -> ColumnElement[bool]:
    """Return an SQL condition: the key belongs to that team."""
    if not tenant:
        return key_id.is_(None)
    return or_(key_id == tenant, key_id.startswith(f"{tenant}/", autoescape=True))
