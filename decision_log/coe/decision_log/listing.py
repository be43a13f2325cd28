"""Lists of one team's decisions: filtered, newest first, in pages. Functions block."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field
from sqlalchemy import ColumnElement, Select, func, select, tuple_
from sqlmodel import col

from coe.base.errors import StoreError
from coe.base.json_text import ColumnText, from_json
from coe.decision_log.decision_record import DecisionKind, TerminalState
from coe.decision_log.read import read_rewards
from coe.decision_log.tables.log import FILTERED, DecisionRow, FeedbackRow
from coe.router.types import DecisionReason, Record

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


FEW = 1000
"""Pieces of feedback whose decisions are looked up by id. If there are more, a scan soon meets a decision with some."""

Text = Annotated[ColumnText, Field(min_length=1, max_length=256)]


class Opinion(StrEnum):
    """Feedback on a decision, as a filter."""

    GOOD = "good"  # a value of 0.5 or more
    BAD = "bad"  # a value below
    ANY = "any"
    NONE = "none"


class Doubt(StrEnum):
    """The certainty of stage 1, as a filter."""

    SURE = "sure"
    UNSURE = "unsure"  # the decision fell back to `general`


class DecisionFilter(Record):
    """Conditions on decisions, all of which must hold; None sets no condition."""

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
    """A decision in a list. `feedback` is the weighted mean of its feedback; None without any."""

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
    """A position in a list: after this decision."""

    at: float
    decision_id: str


class Page(NamedTuple):
    """A part of a list, and the position after which the next part begins; None at the end."""

    lines: tuple[DecisionLine, ...]
    next: Place | None


def list_decisions(
    connection: Connection, tenant: str, wanted: DecisionFilter, *, limit: int, after: Place | None = None
) -> Page:
    """Return up to `limit` decisions of a team after a position.

    Args:
        tenant: the owner of the decisions; '' is everybody without a key.

    Raises:
        StoreError: a row is damaged.
    """
    columns = DecisionRow.__table__.c
    query = select(columns.at, columns.decision_id, columns.expert, columns.record)
    query = query.where(*conditions(connection, tenant, wanted))
    if after is not None:
        query = query.where(columns.at <= after.at, tuple_(columns.at, columns.decision_id) < tuple_(*after))
    rows = connection.execute(query.order_by(columns.at.desc(), columns.decision_id.desc()).limit(limit)).all()
    rewards = read_rewards(connection, ids=[row.decision_id for row in rows])
    lines = tuple(line_of(row.record, row.expert, rewards.get(row.decision_id)) for row in rows)
    return Page(lines, Place(rows[-1].at, rows[-1].decision_id) if len(rows) == limit else None)


def line_of(record: str, expert: str | None, feedback: float | None) -> DecisionLine:
    """Return the list entry of a row; raise StoreError if the row is damaged."""
    try:
        values = from_json(record)
        known = {**(values["decision"] or {}), **values["usage"], **values, "expert": expert, "feedback": feedback}
        return DecisionLine.model_validate({name: known.get(name) for name in DecisionLine.model_fields})
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError("a row of the decision log cannot be read: it is not a decision record") from error


def conditions(connection: Connection, tenant: str, wanted: DecisionFilter) -> Iterator[ColumnElement[bool]]:
    """Yield a filter's conditions, on the team's index unless a conversation or rare feedback selects fewer rows."""
    columns, ids = DecisionRow.__table__.c, None
    if wanted.feedback not in (None, Opinion.NONE):
        found = connection.scalars(said(wanted.feedback).limit(FEW)).all()
        ids = found if len(found) < FEW else None
    if ids is not None:
        yield columns.decision_id.in_(ids)
    if wanted.conversation is not None:
        yield columns.session_id == wanted.conversation
    is_few = ids is not None or wanted.conversation is not None
    yield (func.coalesce(columns.tenant, "") if is_few else columns.tenant) == tenant
    if wanted.since is not None:
        yield columns.at >= wanted.since
    if wanted.until is not None:
        yield columns.at < wanted.until
    values = wanted.model_dump(include={*FILTERED}) | {"is_probe": wanted.probe}
    values["is_fallback"] = None if wanted.doubt is None else wanted.doubt is Doubt.UNSURE
    for name, value in values.items():
        if value is not None:
            yield columns[name] == value
    if wanted.feedback is not None and ids is None:
        matching = said(wanted.feedback).where(col(FeedbackRow.decision_id) == columns.decision_id).exists()
        yield ~matching if wanted.feedback is Opinion.NONE else matching


def said(opinion: Opinion) -> Select[str]:
    """Return a query for the ids of decisions with such feedback; for `NONE`, with any feedback."""
    value = col(FeedbackRow.value)
    bounds = {Opinion.GOOD: (value >= 0.5,), Opinion.BAD: (value < 0.5,)}
    return select(col(FeedbackRow.decision_id)).where(*bounds.get(opinion, ()))
