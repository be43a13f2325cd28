"""Limits on what judging costs. In one event loop; each gateway has its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

HOUR_S = 3600.0
DAY_S = 86_400.0


class Budget:
    """At most so many samples in any hour and so many US dollars in any day. A call's price is known when it has ended,
    so the last one may go beyond.

    Args:
        clock: seconds, only forward.
    """

    def __init__(self, max_per_hour: int, max_usd_per_day: float, clock: Callable[[], float]) -> None:
        self._max_per_hour = max_per_hour
        self._max_usd_per_day = max_usd_per_day
        self._clock = clock
        self._taken: deque[float] = deque()
        self._spent: deque[tuple[float, float]] = deque()

    def take(self) -> bool:
        """Counts one more sample if it fits; False when it does not."""
        now = self._clock()
        while self._taken and self._taken[0] <= now - HOUR_S:
            self._taken.popleft()
        if len(self._taken) >= self._max_per_hour or not self.has_money():
            return False
        self._taken.append(now)
        return True

    def has_money(self) -> bool:
        """Returns True while less than the day's dollars were spent."""
        now = self._clock()
        while self._spent and self._spent[0][0] <= now - DAY_S:
            self._spent.popleft()
        return self._max_usd_per_day > 0 and sum(usd for _, usd in self._spent) < self._max_usd_per_day

    def spend(self, usd: float) -> None:
        if usd > 0:
            self._spent.append((self._clock(), usd))
