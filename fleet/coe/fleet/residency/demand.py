"""Recent requests by category, decaying. Pure: `now_s` is passed in.

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


@dataclass
class CategoryDemand:
    """Requests of one category: their decayed count as of `at_s`."""

    at_s: float
    mass: float = 0.0
    requests: float = 0.0
    conversations: float = 0.0
    rows: deque[Float64Array] = field(default_factory=lambda: deque(maxlen=ROWS_PER_CATEGORY))

    @property
    def turns(self) -> float:
        """Mean requests of a conversation."""
        return self.requests / self.conversations if self.conversations else 1.0


class Demand:
    """The requests of the last `memory_s` or so: each counts exp(-age / memory_s).

    A conversation that begins counts all the turns that those of its category have had on average, at once; its later
    turns count nothing more. A request of no known conversation counts one.
    """

    def __init__(self, n_residents: int, memory_s: float) -> None:
        self._m, self.memory_s = n_residents, memory_s
        self.categories: dict[str, CategoryDemand] = {}

    def note(self, now_s: float, category: str, quality: Float64Array, begins: bool | None = None) -> None:
        """One request.

        Args:
            quality: (m,) predicted.
            begins: a conversation begins, or continues; None: there is none.
        """
        found = self.categories.get(category)
        if found is None:
            found = self.categories[category] = CategoryDemand(now_s)
        decay = math.exp((found.at_s - now_s) / self.memory_s)
        weight = 1.0
        if begins is not None:
            found.requests += 1
            found.conversations += begins
            weight = found.turns if begins else 0.0
        found.mass, found.at_s = found.mass * decay + weight, now_s
        if not found.rows or not np.array_equal(found.rows[-1], quality):
            found.rows.append(quality)

    def rows(self, now_s: float) -> tuple[Float64Array, Float64Array]:
        """Expected requests (r,) of the coming `memory_s`, and their predicted quality (r, m)."""
        weights: list[float] = []
        rows: list[Float64Array] = []
        for each in self.categories.values():
            mass = each.mass * math.exp((each.at_s - now_s) / self.memory_s)
            weights += [mass / len(each.rows)] * len(each.rows)
            rows += each.rows
        return np.array(weights), np.array(rows).reshape(-1, self._m)
