"""Follows rewards as they come in and says, in a log line and a metric, when a router's promises stop coming true."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter

from base.errors import StoreError
from decision_log.drift import ACCURACY, DriftMonitor, SignalChange
from decision_log.reward_pages import PAGE, RewardPage, RewardPages
from fleet.tasks import Poller

LOOK_EVERY_S = 10.0
SETTLED_S = 5.0
"""Feedback this fresh is left for a later look: its decision may still be on its way to SQL."""

HISTORY = 2000
"""Rewards from before the start that fill the windows, so that a restart does not forget what was normal (ours)."""

logger = logging.getLogger(__name__)


class DriftWatch(Poller):
    """Looks every `LOOK_EVERY_S` at the feedback that is new. Every gateway does, and all find the same."""

    def __init__(self, pages: RewardPages) -> None:
        super().__init__("the watch over drift", LOOK_EVERY_S, (StoreError,))
        self._pages = pages
        self._monitor = DriftMonitor()
        self._last: int | None = None  # number of the last feedback that was seen; None before the history
        self._waiting: list[int] = []  # numbers of feedback up to there that could not be taken yet
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

    async def look(self, until: float | None = None) -> list[SignalChange]:
        """Takes the feedback that is new, and returns the changes that it brings. What is fresher, or has no decision
        in SQL yet, is taken by a later look.

        Args:
            until: only feedback from before this time (Unix seconds); None: `SETTLED_S` ago.

        Raises:
            StoreError: the database cannot be read now.
        """
        until = time.time() - SETTLED_S if until is None else until
        is_history = self._last is None
        if self._last is None:
            self._last = await asyncio.to_thread(self._pages.number_before, until, HISTORY)
        pages = [self._waiting[start : start + PAGE] for start in range(0, len(self._waiting), PAGE)]
        waiting: list[int] = []
        changes: list[SignalChange] = []
        for numbers in pages:
            found = await asyncio.to_thread(self._pages.of, numbers, until)
            waiting += found.waiting
            changes += self._take(found)
        self._waiting = waiting
        while (found := await asyncio.to_thread(self._pages.after, self._last, until)).last:
            self._waiting += found.waiting
            changes += self._take(found)
            self._last = found.last
        if is_history:
            return []
        for change in changes:
            self.alarms[change.signal] += 1
            logger.warning("drift: %s went from %.3f to %.3f", change.signal, change.before, change.after)
        return changes

    def _take(self, page: RewardPage) -> list[SignalChange]:
        return [
            change
            for reward in page.rewards
            for change in self._monitor.rated(reward.expert, reward.value, reward.predicted)
        ]
