"""Decisions of one team as a list: filtered, newest first, a page at a time. Calls block."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field
from sqlalchemy import Boolean, ColumnElement, Select, and_, func, null, select, tuple_

from coe.base.errors import StoreError
from coe.base.json_text import from_json
from coe.base.request_body import ColumnText
from coe.decision_log.decision_record import DecisionKind, TerminalState
from coe.decision_log.read import read_rewards
from coe.decision_log.tables import DECISIONS, FEEDBACK, FILTERED
from coe.router.types import DecisionReason, Record

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Row


LOOK_ROWS, LOOK_S = 5000, 1.0
"""Rows that one statement looks through, and the time (s) after which a page that is not full has no further one."""

FEW = 1000
"""Pieces of feedback whose decisions are looked up. Where there are more, a list soon meets one that has some."""

BEGINNING = -1e308

Text = Annotated[ColumnText, Field(min_length=1, max_length=256)]


class Opinion(StrEnum):
    """Feedback on a decision, as a filter."""

    GOOD = "good"  # a value of 0.5 or more
    BAD = "bad"  # a value below
    ANY = "any"
    NONE = "none"


class Doubt(StrEnum):
    """Certainty of stage 1, as a filter."""

    SURE = "sure"
    UNSURE = "unsure"  # the decision fell back to `general`


class DecisionFilter(Record):
    """Conditions on decisions, all of which must hold; None asks nothing."""

    since: float | None = Field(default=None, allow_inf_nan=False, description="Unix seconds, included")
    until: float | None = Field(default=None, allow_inf_nan=False, description="Unix seconds, not included")
    category: Text | None = None
    expert: Text | None = Field(default=None, description="which answered, or was chosen if none did")
    policy: Text | None = None
    state: TerminalState | None = None
    feedback: Opinion | None = None
    doubt: Doubt | None = None
    router_version: Text | None = None
    probe: bool | None = Field(default=None, description="asked by coe itself")
    conversation: Text | None = Field(default=None, description="`session_id` of a record")


class DecisionLine(Record):
    """A decision in a list. `feedback` is the weighted mean of what was said, None without any."""

    decision_id: str
    at: float
    kind: DecisionKind
    requested_model: str
    state: TerminalState
    status: int
    error_code: str | None
    expert: str | None
    category: str | None
    likely_category: str | None
    confidence: float | None
    uncertainty: float | None
    is_fallback: bool | None
    reason: DecisionReason | None
    propensity: float | None
    policy: str | None
    router_version: str | None
    session_id: str | None
    key_id: str | None
    language: str | None
    turns: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    ttft_ms: float | None
    latency_ms: float
    is_probe: bool
    feedback: float | None
    text: str | None


class Place(NamedTuple):
    """A place in a list: behind this decision."""

    at: float
    decision_id: str


class Page(NamedTuple):
    """A part of a list, perhaps without lines, and the place after which the next part begins; None at its end."""

    lines: tuple[DecisionLine, ...]
    next: Place | None


def list_decisions(
    connection: Connection, tenant: str, wanted: DecisionFilter, *, limit: int, after: Place | None = None
) -> Page:
    """Up to `limit` decisions of a team behind a place, fewer where LOOK_S has passed before so many matched.

    An index finds the rows of one condition, the rarest, newest first; the others are tried on these.

    Args:
        tenant: the owner of the decisions; '' is everybody without a key.

    Raises:
        StoreError: a row is damaged.
    """
    until_s, columns, span = time.monotonic() + LOOK_S, DECISIONS.c, tuple(times(connection, wanted))
    indexed = indexed_conditions(connection, tenant, wanted)
    query = select(columns.at, columns.decision_id, columns.expert, columns.record)
    query = query.where(*conditions(tenant, wanted)).order_by(columns.at.desc(), columns.decision_id.desc())
    rows: list[Row[*tuple[Any, ...]]] = []
    while True:
        earlier = () if after is None else (columns.at < after.at,)
        looks = [look(connection, each, (*span, *earlier)) for each in indexed]
        floor = min(looks)
        part = query.where(indexed[looks.index(floor)], *span, not_before(connection, floor))
        if after is not None:
            part = part.where(columns.at <= after.at, tuple_(columns.at, columns.decision_id) < tuple_(*after))
        rows += connection.execute(part.limit(limit - len(rows)))
        if len(rows) == limit:
            after = Place(rows[-1].at, rows[-1].decision_id)
            break
        after = None if floor == BEGINNING else Place(floor, "")
        if after is None or time.monotonic() >= until_s:
            break
    rewards = read_rewards(connection, ids=[row.decision_id for row in rows])
    lines = (line_of(row.record, row.expert, rewards.get(row.decision_id)) for row in rows)
    return Page(tuple(lines), after)


def line_of(record: str, expert: str | None, feedback: float | None) -> DecisionLine:
    """The line of one row. Raises StoreError: it is damaged."""
    try:
        values = from_json(record)
        known = {**(values["decision"] or {}), **values["usage"], **values, "expert": expert, "feedback": feedback}
        return DecisionLine.model_validate({name: known.get(name) for name in DecisionLine.model_fields})
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError("a row of the decision log cannot be read: it is not a decision record") from error


def look(connection: Connection, condition: ColumnElement[bool], span: Sequence[ColumnElement[bool]]) -> float:
    """The time down to which LOOK_ROWS decisions fulfil a condition; BEGINNING where fewer do."""
    at = DECISIONS.c.at
    query = select(at).where(condition, *span).order_by(at.desc()).offset(LOOK_ROWS).limit(1)
    found = connection.execute(query).scalar()
    return BEGINNING if found is None else found


def values_of(tenant: str, wanted: DecisionFilter) -> dict[str, object]:
    """The values that columns must have."""
    values: dict[str, object] = wanted.model_dump(include={*FILTERED})
    values |= {"is_fallback": wanted.doubt and wanted.doubt is Doubt.UNSURE, "is_probe": wanted.probe}
    values |= {"session_id": wanted.conversation, "tenant": tenant}
    return {name: value for name, value in values.items() if value is not None}


def indexed_conditions(connection: Connection, tenant: str, wanted: DecisionFilter) -> Sequence[ColumnElement[bool]]:
    """Conditions that each have an index and hold for all that is wanted."""
    columns, values = DECISIONS.c, values_of(tenant, wanted)
    if wanted.feedback not in (None, Opinion.NONE):
        ids = connection.scalars(said(wanted.feedback).limit(FEW)).all()
        if len(ids) < FEW:
            return [columns.decision_id.in_(ids)]
    if wanted.conversation is not None:
        return [columns.session_id == wanted.conversation]
    mine = columns.tenant == tenant
    return [and_(mine, columns[name] == values[name]) for name in FILTERED if name in values] or [mine]


def conditions(tenant: str, wanted: DecisionFilter) -> Iterator[ColumnElement[bool]]:
    """All conditions but those on the time, in words that no index answers."""
    for name, value in values_of(tenant, wanted).items():
        yield unindexed(DECISIONS.c[name]) == value
    if wanted.feedback is not None:
        found = said(wanted.feedback).where(FEEDBACK.c.decision_id == DECISIONS.c.decision_id).exists()
        yield ~found if wanted.feedback is Opinion.NONE else found


def times(connection: Connection, wanted: DecisionFilter) -> Iterator[ColumnElement[bool]]:
    """Conditions on the time, by which every index is sorted."""
    if wanted.since is not None:
        yield not_before(connection, wanted.since)
    if wanted.until is not None:
        yield DECISIONS.c.at < wanted.until


def not_before(connection: Connection, at: float) -> ColumnElement[bool]:
    """A lower bound of the time. SQLite expects few rows between two bounds, and would take the index of the team
    alone; `likely` tells it that this bound leaves most rows in."""
    bound: ColumnElement[bool] = DECISIONS.c.at >= at
    return func.likely(bound, type_=Boolean) if connection.dialect.name == "sqlite" else bound


def said(opinion: Opinion) -> Select[tuple[str]]:
    """Ids of decisions with such feedback; of all that have some for `NONE`."""
    value = FEEDBACK.c.value
    bounds = {Opinion.GOOD: (value >= 0.5,), Opinion.BAD: (value < 0.5,)}
    return select(FEEDBACK.c.decision_id).where(*bounds.get(opinion, ()))


def unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column, in words that keep the database from choosing its index."""
    return func.coalesce(column, null())
