"""Requests, tokens and cost by key, in sums of short times, so that nobody reads a million decisions for them.

Whoever writes decisions adds them to the sums in the same transaction. Sums count as long as they are of as many
decisions as there are: where others were written or removed, they are made again from the decisions.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from math import ceil, floor
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    JSON,
    ColumnElement,
    Float,
    Integer,
    case,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    type_coerce,
    union_all,
)

from coe.decision_log.decision_record import TerminalState
from coe.decision_log.payloads import RecordPart
from coe.decision_log.tables import DECISIONS, SPEND
from coe.router.types import Record
from coe.router.usage import READ, WRITTEN

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


SLOT_S = 512
"""Time of one sum (s): a power of two, by which a time is divided exactly, so that SQL and Python agree."""

LATEST_S = 1e11
"""Unix time up to which decisions are counted."""

ROWS_AT_ONCE = 1000
"""Decisions that are added up again while others wait to be written: those of one slot at least."""


class Spend(Record):
    """Sums over the requests of one key; None: of those without one. Those that were refused before an expert was asked
    cost nothing and are not counted. Of the prompt tokens, providers read `cached_tokens` from their caches, and wrote
    `cache_write_tokens` to them."""

    key_id: str | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    completion_tokens: int
    cost_usd: float


SUMS = tuple(name for name in Spend.model_fields if name != "key_id")


class Span(NamedTuple):
    """A time, since <= at < until (Unix seconds)."""

    since: float
    until: float

    @property
    def slots(self) -> range:
        """Those that are in it as a whole."""
        return range(ceil(self.since / SLOT_S), floor(self.until / SLOT_S))

    @property
    def edges(self) -> tuple[Span, ...]:
        """The rest of it."""
        slots = self.slots
        if not slots:
            return (self,)
        return Span(self.since, slots.start * SLOT_S), Span(slots.stop * SLOT_S, self.until)


def span_of(since: float, until: float | None) -> Span:
    """The part of a time in which there can be decisions."""
    return Span(min(max(since, 0.0), LATEST_S), LATEST_S if until is None else min(max(until, 0.0), LATEST_S))


EVER = span_of(0.0, None)


def add_spend(connection: Connection, dialect_insert: Any, records: Iterable[RecordPart]) -> None:
    """Adds decisions that were written to the sums."""
    found: dict[tuple[int, str], tuple[float, ...]] = {}
    for record in records:
        if 0 <= record.at < LATEST_S:
            key, usage = (int(record.at // SLOT_S), record.key_id or ""), record.usage
            tokens = (usage.prompt_tokens, usage.of(READ), usage.of(WRITTEN), usage.completion_tokens)
            values = (0,) * len(SUMS) if record.state == TerminalState.REJECTED else (1, *tokens, record.cost_usd)
            sums = found.get(key, (0,) * (1 + len(SUMS)))
            found[key] = tuple(map(operator.add, sums, (1, *values)))
    new = dialect_insert(SPEND)
    added = {name: SPEND.c[name] + new.excluded[name] for name in ("decisions", *SUMS)}
    # In this order, so that no two writers wait for each other.
    rows = [dict(zip(SPEND.c.keys(), (*key, *sums), strict=True)) for key, sums in sorted(found.items())]
    if rows:
        connection.execute(new.on_conflict_do_update(index_elements=[SPEND.c.slot, SPEND.c.key_id], set_=added), rows)


def forget_sums(connection: Connection, decision_ids: Sequence[str]) -> None:
    """Deletes the sums that decisions are in which will be deleted."""
    slots = select(slot_of(connection)).where(DECISIONS.c.decision_id.in_(decision_ids))
    connection.execute(delete(SPEND).where(SPEND.c.slot.in_(slots)))


def stale_parts(connection: Connection, slots: range) -> Iterator[range]:
    """Slots whose sums are not of as many decisions as there are, some in a row at a time. One statement counts both,
    so that what is written meanwhile is seen in both or in neither."""
    slot = slot_of(connection)
    counted = select(slot.label("slot"), func.count().label("n")).where(*is_within(slots)).group_by(slot)
    summed = select(SPEND.c.slot, -func.sum(SPEND.c.decisions)).where(*is_one_of(slots)).group_by(SPEND.c.slot)
    both = union_all(counted, summed).subquery()
    differs = select(both.c.slot, func.sum(both.c.n)).group_by(both.c.slot).having(func.sum(both.c.n) != 0)
    part, rows = range(0), 0
    for stale, difference in connection.execute(differs.order_by(both.c.slot)):
        if part and (stale != part.stop or rows >= ROWS_AT_ONCE):
            yield part
            part, rows = range(0), 0
        part, rows = range(part.start if part else int(stale), int(stale) + 1), rows + abs(int(difference))
    if part:
        yield part


def add_again(connection: Connection, slots: range) -> None:
    """Makes the sums of some slots from their decisions. No other may be written meanwhile."""
    slot, key_id = slot_of(connection), key_of(connection)
    connection.execute(delete(SPEND).where(*is_one_of(slots)))
    totals = [func.count(), *map(func.sum, sums_of(connection))]
    rows = select(slot, key_id, *totals).where(*is_within(slots)).group_by(slot, key_id)
    connection.execute(insert(SPEND).from_select(SPEND.c.keys(), rows))


def spend_by_key(connection: Connection, tenant: str | None, span: Span) -> tuple[Spend, ...]:
    """Sums by key of the requests in a time, dearest first; of every team where `tenant` is None."""
    key_id, at = key_of(connection), DECISIONS.c.at
    parts = [select(*(SPEND.c[name] for name in Spend.model_fields)).where(*is_one_of(span.slots))]
    for edge in span.edges:
        columns = zip(Spend.model_fields, (key_id, *sums_of(connection)), strict=True)
        in_edge = select(*(column.label(name) for name, column in columns))
        parts.append(in_edge.where(at >= edge.since, at < edge.until))
    found = union_all(*parts).subquery().c
    query = select(found.key_id, *(func.sum(found[name]) for name in SUMS)).group_by(found.key_id)
    if tenant is not None:
        query = query.where(is_of(func.nullif(found.key_id, ""), tenant))
    rows = connection.execute(query.having(func.sum(found.requests) > 0)).all()
    named = (dict(zip(Spend.model_fields, row, strict=True)) for row in rows)
    spends = (Spend.model_validate({**row, "key_id": row["key_id"] or None}) for row in named)
    return tuple(sorted(spends, key=lambda spend: (-spend.cost_usd, -spend.requests)))


def may_have(connection: Connection, tenant: str, span: Span) -> ColumnElement[bool]:
    """A condition on decisions of a time: False where the sums of their slot are right and have none of that team. It
    reads no record."""
    slots, beside = range(int(span.since // SLOT_S), int(span.until // SLOT_S) + 1), DECISIONS.alias().c.at
    begin = cast(SPEND.c.slot, Float) * SLOT_S
    there = select(func.count()).where(beside >= begin, beside < begin + SLOT_S).scalar_subquery()
    theirs = func.sum(case((is_of(func.nullif(SPEND.c.key_id, ""), tenant), 1), else_=0))
    without = select(SPEND.c.slot).where(*is_one_of(slots)).group_by(SPEND.c.slot)
    without = without.having(theirs == 0, func.sum(SPEND.c.decisions) == there)
    is_counted = (DECISIONS.c.at >= 0) & (DECISIONS.c.at < LATEST_S)
    return case((is_counted, slot_of(connection)), else_=-1).not_in(without)


def slot_of(connection: Connection) -> ColumnElement[int]:
    """The slot of a decision, in SQL."""
    part = DECISIONS.c.at / SLOT_S
    return cast(part if connection.dialect.name == "sqlite" else func.floor(part), Integer)  # SQLite's cast cuts off


def key_of(connection: Connection) -> ColumnElement[str]:
    """The key of a decision, '' without one."""
    return func.coalesce(of_record(connection, "key_id").as_string(), "")


def sums_of(connection: Connection) -> list[Any]:
    """Amounts that a decision adds to the sums."""

    def tokens(*path: str) -> Any:
        return of_record(connection, "usage", *path).as_integer()

    def of_kinds(kinds: Iterable[str]) -> Any:
        return reduce(operator.add, (func.coalesce(tokens("kinds", kind), 0) for kind in kinds))

    prompt, answer = tokens("prompt_tokens"), tokens("completion_tokens")
    values = (1, prompt, of_kinds(READ), of_kinds(WRITTEN), answer, of_record(connection, "cost_usd").as_float())
    return [case((DECISIONS.c.state != TerminalState.REJECTED.value, value), else_=0) for value in values]


def is_within(slots: range) -> tuple[ColumnElement[bool], ...]:
    """Conditions on a decision."""
    return DECISIONS.c.at >= float(slots.start * SLOT_S), DECISIONS.c.at < float(slots.stop * SLOT_S)


def is_one_of(slots: range) -> tuple[ColumnElement[bool], ...]:
    """Conditions on a sum."""
    return SPEND.c.slot >= slots.start, SPEND.c.slot < slots.stop


def is_of(key_id: ColumnElement[str], tenant: str) -> ColumnElement[bool]:
    """Returns whether a key is one of that team, in SQL."""
    if not tenant:
        return key_id.is_(None)
    return or_(key_id == tenant, key_id.startswith(f"{tenant}/", autoescape=True))


def of_record(connection: Connection, *path: str) -> Any:
    """A value inside the JSON of a record."""
    record = DECISIONS.c.record
    # SQLite reads JSON from text; a cast would make a number of it.
    values = type_coerce(record, JSON) if connection.dialect.name == "sqlite" else cast(record, JSON)
    return values[path if len(path) > 1 else path[0]]
