"""Decisions of one team as a list: filtered, newest first, a page at a time. Calls block."""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field
from sqlalchemy import ColumnElement, and_, case, false, select, true, tuple_

from coe.base.errors import StoreError
from coe.base.json_text import from_json
from coe.base.request_body import ColumnText
from coe.decision_log.decision_record import DecisionKind, TerminalState
from coe.decision_log.read import read_rewards
from coe.decision_log.spend import SLOT_S, is_of, may_have, of_record, slots_of
from coe.decision_log.tables import DECISIONS, FEEDBACK
from coe.router.types import DecisionReason, Record

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Row


LOOK_ROWS, LOOK_S = 5000, 1.0
"""Rows that one statement looks through, and the time (s) after which a page that is not full has no further one."""

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
    """Up to `limit` decisions of a team behind a place, fewer where LOOK_S has passed before so many matched. Rows of
    another version of the record are left out.

    Args:
        tenant: the owner of the decisions; '' is everybody without a key.

    Raises:
        StoreError: a row is damaged.
    """
    until_s, columns = time.monotonic() + LOOK_S, DECISIONS.c
    matching = (
        select(columns.at, columns.decision_id, columns.expert, columns.record)
        .where(*of_index(wanted), *of_columns(wanted))
        .order_by(columns.at.desc(), columns.decision_id.desc())
    )
    matches = and_(*conditions(connection, wanted), of_tenant(connection, tenant))
    times = select(columns.at).where(*of_index(wanted)).order_by(columns.at.desc()).offset(LOOK_ROWS).limit(1)
    rows: list[Row[*tuple[Any, ...]]] = []
    while True:
        rest, earlier = matching.limit(limit - len(rows)), times
        if after is not None:
            rest = rest.where(tuple_(columns.at, columns.decision_id) < tuple_(*after))
            earlier = times.where(columns.at < after.at)
        floor = connection.execute(earlier).scalar()
        if floor is not None:
            rest = rest.where(columns.at >= floor)
        found: ColumnElement[bool] = matches
        if wanted.conversation is None:  # which has few decisions, in any number of slots
            slots = slots_of(floor or wanted.since or 0.0, wanted.until if after is None else after.at + SLOT_S)
            found = case((may_have(connection, tenant, slots), matches), else_=false())  # in this order
        rows += connection.execute(rest.where(found))
        if len(rows) == limit:
            after = Place(rows[-1].at, rows[-1].decision_id)
            break
        after = None if floor is None else Place(floor, "")
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


def of_index(wanted: DecisionFilter) -> Iterator[ColumnElement[bool]]:
    """Those conditions of a filter that an index answers, in SQL."""
    columns = DECISIONS.c
    if wanted.since is not None:
        yield columns.at >= wanted.since
    if wanted.until is not None:
        yield columns.at < wanted.until
    if wanted.conversation is not None:
        yield columns.session_id == wanted.conversation


def of_columns(wanted: DecisionFilter) -> Iterator[ColumnElement[bool]]:
    """Those on columns. They are alone, because SQLite would read a record for what follows in the same
    expression, which takes twice as long."""
    for name in ("expert", "category", "state", "router_version", "policy"):
        if (value := getattr(wanted, name)) is not None:
            yield DECISIONS.c[name] == value


def conditions(connection: Connection, wanted: DecisionFilter) -> Iterator[ColumnElement[bool]]:
    """The others, in SQL."""
    if wanted.doubt is not None:
        yield of_record(connection, "decision", "is_fallback").as_boolean() == (wanted.doubt is Doubt.UNSURE)
    if wanted.probe is not None:
        yield of_record(connection, "is_probe").as_boolean() == wanted.probe
    if wanted.feedback is not None:
        yield is_judged(wanted.feedback)


def is_judged(opinion: Opinion) -> ColumnElement[bool]:
    said = select(FEEDBACK.c.id).where(FEEDBACK.c.decision_id == DECISIONS.c.decision_id)
    value = {Opinion.GOOD: FEEDBACK.c.value >= 0.5, Opinion.BAD: FEEDBACK.c.value < 0.5}.get(opinion, true())
    found = said.where(value).exists()
    return ~found if opinion is Opinion.NONE else found


def of_tenant(connection: Connection, tenant: str) -> ColumnElement[bool]:
    """Decisions that this team made: those of its keys."""
    return is_of(of_record(connection, "key_id").as_string(), tenant)
