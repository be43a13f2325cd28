"""Follows rewards as they come in and says, in a log line and a metric, when a router's promises stop coming true."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import NamedTuple

from sqlalchemy import ColumnElement, select

from decision_log.database import Database
from decision_log.drift import ACCURACY, DriftMonitor, SignalChange
from decision_log.tables import DECISIONS, FEEDBACK
from fleet.tasks import stop_task
from router.errors import StoreError
from router.json_text import from_json

LOOK_EVERY_S = 10.0
SETTLED_S = 5.0
"""Feedback this fresh is left for a later look: its decision may still be on its way to SQL."""

WAIT_S = 86_400.0
"""So long after it was given, feedback whose decision has not come is looked for: a spool may wait for Redis for hours,
and what was removed from the log never comes (ours)."""

HISTORY = 2000
"""Rewards from before the start that fill the windows, so that a restart does not forget what was normal (ours)."""

PAGE = 1000

logger = logging.getLogger(__name__)


class Reward(NamedTuple):
    """A reward with the expert that earned it and what the router had predicted of it."""

    number: int
    expert: str
    value: float
    predicted: float | None


class Page(NamedTuple):
    """Feedback of some numbers: `rewards` whose decision is there, `waiting` numbers to look at again, and the `last`
    number of all."""

    rewards: list[Reward]
    waiting: list[int]
    last: int


class DriftWatch:
    """Looks every `LOOK_EVERY_S` at the feedback that is new. Every gateway does, and they say the same."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._monitor = DriftMonitor()
        self._last: int | None = None  # number of the last feedback that was seen; None before the history
        self._waiting: list[int] = []  # numbers of feedback up to there that could not be taken yet
        self._task: asyncio.Task[None] | None = None
        self.alarms: Counter[str] = Counter()

    @property
    def accuracy(self) -> float | None:
        """Prequential accuracy over the window since the last change; None before the first reward."""
        alarm = self._monitor.alarms.get(ACCURACY)
        return None if alarm is None or not alarm.window.width else alarm.window.mean

    @property
    def rewards(self) -> int:
        """Rewards with a prediction that were taken."""
        return self._monitor.counts.get(ACCURACY, 0)

    @property
    def waiting(self) -> int:
        """Pieces of feedback whose decision is awaited."""
        return len(self._waiting)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="drift-watch")

    async def aclose(self) -> None:
        await stop_task(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self.look(time.time() - SETTLED_S)
            except StoreError as error:
                logger.warning("the watch over drift waits (%s)", type(error).__name__)
            except Exception:
                logger.exception("the watch over drift keeps running after a fault")
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, until: float) -> list[SignalChange]:
        """Takes the feedback from before a time (Unix seconds) that is new, and tells the changes that it brings.

        What is fresher, or has no decision in SQL yet, is taken by a later look.

        Raises:
            StoreError: the database cannot be read now.
        """
        is_history = self._last is None
        if self._last is None:
            self._last = await asyncio.to_thread(self._begin, until)
        pages = [self._waiting[start : start + PAGE] for start in range(0, len(self._waiting), PAGE)]
        waiting: list[int] = []
        changes: list[SignalChange] = []
        for numbers in pages:
            found = await asyncio.to_thread(self._page, FEEDBACK.c.id.in_(numbers), until)
            waiting += found.waiting
            changes += self._take(found)
        self._waiting = waiting
        while (found := await asyncio.to_thread(self._page, FEEDBACK.c.id > self._last, until)).last:
            self._waiting += found.waiting
            changes += self._take(found)
            self._last = found.last
        if is_history:
            return []
        for change in changes:
            self.alarms[change.signal] += 1
            logger.warning("drift: %s went from %.3f to %.3f", change.signal, change.before, change.after)
        return changes

    def _take(self, page: Page) -> list[SignalChange]:
        return [
            change
            for reward in page.rewards
            for change in self._monitor.rated(reward.expert, reward.value, reward.predicted)
        ]

    def _begin(self, until: float) -> int:
        """The number of feedback after which the history begins."""
        query = select(FEEDBACK.c.id).where(FEEDBACK.c.at < until).order_by(FEEDBACK.c.id.desc()).offset(HISTORY)
        with self._store.transaction("read feedback") as connection:
            return connection.execute(query.limit(1)).scalar_one_or_none() or 0

    def _page(self, which: ColumnElement[bool], until: float) -> Page:
        query = (
            select(FEEDBACK.c.id, FEEDBACK.c.at, FEEDBACK.c.value, DECISIONS.c.record)
            .outerjoin(DECISIONS, DECISIONS.c.decision_id == FEEDBACK.c.decision_id)
            .where(which)
            .order_by(FEEDBACK.c.id)
            .limit(PAGE)
        )
        with self._store.transaction("read feedback") as connection:
            rows = connection.execute(query).all()
        ready = [row for row in rows if row.record is not None and row.at < until]
        waiting = [row.id for row in rows if row.at >= until or (row.record is None and row.at >= until - WAIT_S)]
        return Page([reward_of(row.id, row.value, row.record) for row in ready], waiting, rows[-1].id if rows else 0)


def reward_of(number: int, value: float, record: str) -> Reward:
    """A reward with its prediction, where the router chose and its choice served."""
    values = from_json(record)
    decision = values.get("decision") or {}
    expert = str(values.get("served_expert") or decision.get("expert"))
    known = dict(zip(decision.get("eligible", ()), decision.get("predicted_quality", ()), strict=False))
    predicted = known.get(expert) if decision.get("reason") != "explicit" else None
    return Reward(number, expert, value, predicted)
