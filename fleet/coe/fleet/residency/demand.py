"""Recent requests by category, decaying, and what is expected next by the time of day. Pure: `now_s` is passed in.

Shapes: m residents, r rows of remembered requests.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]

ROWS_PER_CATEGORY = 16
"""Differing qualities that are remembered of a category; a map predicts one."""

HOURS = 24
HOUR_S = 3600.0
NEW_HOUR_WEIGHT = 0.4
"""Weight of the latest day in the mean of an hour (ours)."""

MOST_GROWTH = 3.0
"""An hour's mean may raise or lower what is expected by no more than this (ours)."""


@dataclass
class CategoryDemand:
    """Requests of one category: their decayed count and loss, both as of `at_s`."""

    at_s: float
    mass: float = 0.0
    lost: float = 0.0
    requests: float = 0.0
    conversations: float = 0.0
    rows: deque[Float64Array] = field(default_factory=lambda: deque(maxlen=ROWS_PER_CATEGORY))
    by_hour: Float64Array = field(default_factory=lambda: np.full(HOURS, np.nan))
    this_hour: float = 0.0
    unfair_since_s: float | None = None

    @property
    def turns(self) -> float:
        """Mean requests of a conversation."""
        return self.requests / self.conversations if self.conversations else 1.0


class Demand:
    """The requests of the last `memory_s` or so: each counts exp(-age / memory_s).

    A conversation that begins counts all the turns that those of its category have had on average, at once; its later
    turns count nothing more. A request of no known conversation counts one.
    """

    def __init__(self, n_residents: int, memory_s: float, now_s: float) -> None:
        self._m, self.memory_s = n_residents, memory_s
        self._hour = int(now_s // HOUR_S)
        self.categories: dict[str, CategoryDemand] = {}

    def note(
        self,
        now_s: float,
        category: str,
        quality: Float64Array,
        *,
        lost: float = 0.0,
        begins: bool | None = None,
    ) -> CategoryDemand:
        """One request.

        Args:
            quality: (m,) predicted.
            lost: predicted quality of the best resident less that of the one that served.
            begins: a conversation begins, or continues; None: there is none.
        """
        self._turn_hour(now_s)
        found = self.categories.get(category)
        if found is None:
            found = self.categories[category] = CategoryDemand(now_s)
        decay = math.exp((found.at_s - now_s) / self.memory_s)
        weight = 1.0
        if begins is not None:
            found.requests += 1
            found.conversations += begins
            weight = found.turns if begins else 0.0
        found.mass, found.lost, found.at_s = found.mass * decay + weight, found.lost * decay + lost, now_s
        found.this_hour += weight
        if not found.rows or not np.array_equal(found.rows[-1], quality):
            found.rows.append(quality)
        return found

    def rows(self, now_s: float) -> tuple[Float64Array, Float64Array]:
        """Expected requests (r,) of the coming `memory_s`, and their predicted quality (r, m)."""
        weights: list[float] = []
        rows: list[Float64Array] = []
        for each in self.categories.values():
            mass = each.mass * math.exp((each.at_s - now_s) / self.memory_s) * self._growth(each, now_s)
            weights += [mass / len(each.rows)] * len(each.rows)
            rows += each.rows
        return np.array(weights), np.array(rows).reshape(-1, self._m)

    def _growth(self, category: CategoryDemand, now_s: float) -> float:
        """The mean of the hour that is coming over that of the one just past, where both are known."""
        past = category.by_hour[int((now_s - self.memory_s / 2) // HOUR_S) % HOURS]
        coming = category.by_hour[int((now_s + self.memory_s / 2) // HOUR_S) % HOURS]
        if not (past >= 0 and coming >= 0):
            return 1.0
        return float(min(max((coming + 1.0) / (past + 1.0), 1 / MOST_GROWTH), MOST_GROWTH))

    def _turn_hour(self, now_s: float) -> None:
        hour = int(now_s // HOUR_S)
        for past in range(self._hour, min(hour, self._hour + HOURS)):
            for each in self.categories.values():
                before = each.by_hour[past % HOURS]
                gain = each.this_hour - before
                each.by_hour[past % HOURS] = each.this_hour if np.isnan(before) else before + NEW_HOUR_WEIGHT * gain
                each.this_hour = 0.0
        self._hour = hour
