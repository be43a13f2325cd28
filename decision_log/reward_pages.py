"""Rewards in the order in which they were given, each with the prediction of the router. Read from SQL in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, select

from base.json_text import from_json
from decision_log.database import Database
from decision_log.tables import DECISIONS, FEEDBACK

WAIT_S = 86_400.0
"""So long after it was given, feedback whose decision has not come is looked for: a spool may wait for Redis for hours,
and a decision that was removed from the log never comes (ours)."""

PAGE = 1000


class Reward(NamedTuple):
    """A reward with the expert that earned it and the router's prediction of it."""

    number: int
    expert: str
    value: float
    predicted: float | None


class RewardPage(NamedTuple):
    """Feedback of some numbers: `rewards` whose decision is there, `waiting` numbers to look at again, and the `last`
    number of all, 0 for a page without feedback."""

    rewards: list[Reward]
    waiting: list[int]
    last: int


class RewardPages:
    """Reads feedback from before a time `until` (Unix seconds). Every method blocks and raises StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def number_before(self, until: float, count: int) -> int:
        """The number of the feedback that the last `count` pieces follow; 0 when there are no earlier ones."""
        query = select(FEEDBACK.c.id).where(FEEDBACK.c.at < until).order_by(FEEDBACK.c.id.desc()).offset(count)
        return next((row.id for row in self._database.rows("read feedback", query.limit(1))), 0)

    def after(self, number: int, until: float) -> RewardPage:
        """The next page of feedback."""
        return self._page(FEEDBACK.c.id > number, until)

    def of(self, numbers: Sequence[int], until: float) -> RewardPage:
        """The feedback of these numbers, at most `PAGE`."""
        return self._page(FEEDBACK.c.id.in_(numbers), until)

    def _page(self, which: ColumnElement[bool], until: float) -> RewardPage:
        query = (
            select(FEEDBACK.c.id, FEEDBACK.c.at, FEEDBACK.c.value, DECISIONS.c.record)
            .outerjoin(DECISIONS, DECISIONS.c.decision_id == FEEDBACK.c.decision_id)
            .where(which)
            .order_by(FEEDBACK.c.id)
            .limit(PAGE)
        )
        rows = self._database.rows("read feedback", query)
        ready = [row for row in rows if row.record is not None and row.at < until]
        waiting = [row.id for row in rows if row.at >= until or (row.record is None and row.at >= until - WAIT_S)]
        rewards = [reward_of(row.id, row.value, row.record) for row in ready]
        return RewardPage(rewards, waiting, rows[-1].id if rows else 0)


def reward_of(number: int, value: float, record: str) -> Reward:
    """A reward with its prediction, where the router chose and its choice served."""
    values = from_json(record)
    decision = values.get("decision") or {}
    expert = str(values.get("served_expert") or decision.get("expert"))
    known = dict(zip(decision.get("eligible", ()), decision.get("predicted_quality", ()), strict=False))
    predicted = known.get(expert) if decision.get("reason") != "explicit" else None
    return Reward(number, expert, value, predicted)
