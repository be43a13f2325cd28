"""Figures of several choices over the same resampled queries, so that every difference is paired. Shapes: n queries,
a choices, b draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from coe.eval.metrics.intervals import Estimate, bootstrap_means, gap_closed
from coe.router.types import Float64Array


@dataclass(frozen=True)
class Paired:
    """The means (a,) of choices by name, and draws (b, a) of them."""

    place: Mapping[str, int]
    means: Float64Array
    draws: Float64Array

    @classmethod
    def of(cls, values: Mapping[str, Float64Array], rng: np.random.Generator) -> Self:
        """Resample the values (n,) of each choice."""
        columns = np.stack(list(values.values()), axis=1)
        place = {name: i for i, name in enumerate(values)}
        return cls(place, columns.mean(axis=0), bootstrap_means(columns, rng))

    def mean(self, name: str) -> Estimate:
        """Estimate the mean of a choice."""
        i = self.place[name]
        return Estimate.of(self.means[i], self.draws[:, i])

    def minus(self, name: str, other: str) -> Estimate:
        """Estimate the first choice less the second."""
        i, j = self.place[name], self.place[other]
        return Estimate.of(self.means[i] - self.means[j], self.draws[:, i] - self.draws[:, j])

    def closed(self, name: str, low: str, high: str) -> Estimate | None:
        """Estimate the share of the gap from `low` to `high` that the first choice closes; None if there is no gap."""
        columns = [self.place[each] for each in (name, low, high)]
        value, drawn = (gap_closed(*(part[:, i] for i in columns)) for part in (self.means[None], self.draws))
        return Estimate.of(value[0], drawn) if len(value) and len(drawn) else None
