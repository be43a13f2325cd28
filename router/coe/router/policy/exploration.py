"""Exploration: experts other than the planned one answer a share of the queries, so that the log shows their quality.

A category has a *challenger* if the evidence has another expert ahead of the planned one by more than CAUTION standard
errors of their difference, after its price. The challenger answers as large a share of the category's queries as its
chance of being better, because that is expected to lose nothing. Its answers decide whether it takes the category over
(training.bets).

Any other expert e is compared with the challenger, or else with the planned expert, w, and tried with probability

    p_e = g_e min(scale, most / sum g),    g_e = value_e / (loss_e + LEAST_LOSS),
    value_e = s phi(d / s) - d Phi(-d / s),    d = q_w - q_e,    s^2 = stderr_w^2 + stderr_e^2 + DRIFT^2

`value` is the expected gain of knowing which of the two is better (the expected value of perfect information, Raiffa &
Schlaifer 1961). It is large if their predicted qualities lie within their errors, and next to nothing elsewhere. `loss`
is the predicted loss of quality, max(d, 0), plus the expert's higher price, at GAIN_FOR_DOUBLE_COST. `scale` is solved
with the map: the mean loss over the traffic's mix of categories is at most the policy's budget.

An expert is hopeless, and never tried, if its quality plus one standard error is below `floor` of the best one's.

The module is pure. Shapes: n rows of a solved table (categories, or sample queries), k rows of the map, m experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coe.router.config.policy import GAIN_FOR_DOUBLE_COST
from coe.router.quality import CAUTION
from coe.router.types import Float64Array

MOST_EXPLORED = 0.5
"""Largest share of the queries that a challenger leaves over which neither it nor the planned expert answers. The value
is ours; benchmarks/LOG.md has others."""

MOST_OF_CHALLENGER = 0.8
"""Share of the queries of its category that a challenger answers at most (ours; benchmarks/LOG.md)."""

MOST_SAVED = 0.02
"""Quality that a saving of money makes up for at most (ours)."""

DRIFT = 0.03
"""Standard error of every comparison that no number of answers removes, because experts change (ours)."""

LEAST_LOSS = 0.01
"""Loss that trying an expert of the same predicted quality counts as in the allocation, not in the budget (ours)."""

FLOOR = 0.5
"""Share of the best one's quality below which, one standard error added, an expert is known to be hopeless (ours)."""


@dataclass(frozen=True)
class Exploration:
    """Shares of the queries by which experts are tried.

    `quality` and `stderr` (k, m) are measured; `dear` (k, m) is what an expert's query costs, in units of quality.
    `challengers` are numbers of experts and their shares of the queries, by row. `share` and `loss` are the expected
    share of explored queries and the mean loss of quality, costs included. `floor` is the share of the best one's
    quality below which, by a standard error, nobody is tried. `others` is the share of what a challenger leaves over
    that those beside it and the planned expert answer at most.
    """

    stderr: Float64Array
    dear: Float64Array
    scale: float = math.inf
    share: float = 0.0
    loss: float = 0.0
    quality: Float64Array | None = None
    floor: float = 0.0
    others: float = MOST_EXPLORED
    challengers: Mapping[int, tuple[int, float]] = field(default_factory=dict)

    def hopeful(self, row: int, quality: NDArray[np.floating], planned: int, others: Sequence[int]) -> list[int]:
        """Return the others that are not known to be hopeless; an expert without evidence has a wide error. Queries in
        the last row, `general`, may be of any category, so means over all categories count there as well."""
        checks = [(quality, self.stderr[row])]
        if self.quality is not None and row == len(self.stderr) - 1:
            checks.append((self.quality.mean(axis=0), np.sqrt((self.stderr**2).sum(axis=0)) / len(self.stderr)))
        least = [self.floor * float(found[[planned, *others]].max()) for found, _ in checks]
        return [
            e
            for e in others
            if all(found[e] + error[e] >= at for (found, error), at in zip(checks, least, strict=True))
        ]

    def challenger(
        self, row: int, quality: NDArray[np.floating], planned: int, others: Sequence[int]
    ) -> tuple[int, float] | None:
        """Return the expert with the largest estimated gain over the planned one, after its price, and its share. The
        share is its chance of being better. None if no expert leads by enough."""
        leads = {}
        for e in self.hopeful(row, quality, planned, others):
            lead = float(quality[e] - quality[planned]) - price(self.dear[row], planned, e)
            error = math.hypot(self.stderr[row, planned], self.stderr[row, e])
            if lead > CAUTION * error:
                leads[e] = (lead, min(normal_below(lead / max(error, 1e-9)), MOST_OF_CHALLENGER))
        return max(((e, share) for e, (_, share) in leads.items()), key=lambda each: leads[each[0]][0], default=None)

    def weighed(
        self, row: int, quality: NDArray[np.floating], planned: int, others: Sequence[int]
    ) -> tuple[Float64Array, Float64Array]:
        """Return the weights g and the losses of queries of a row with predicted quality (m,), each of shape (m,). Both
        are 0 for the planned expert and hopeless ones. If there is a challenger, the others are compared with it."""
        weight, loss = np.zeros(len(quality)), np.zeros(len(quality))
        best, _ = self.challengers.get(row, (planned, 0.0))
        for e in self.hopeful(row, quality, planned, others):
            worse = float(quality[best]) - float(quality[e])
            error = math.hypot(self.stderr[row, best], self.stderr[row, e], DRIFT)
            loss[e] = max(worse, 0.0) + max(self.dear[row, e] - self.dear[row, best], 0.0)
            weight[e] = value_of_knowing(worse, error) / (loss[e] + LEAST_LOSS) if e != best else 0.0
        return weight, loss

    def most(self, row: int) -> float:
        """Return the largest share of a row's queries that neither the planned expert nor its challenger answers."""
        return self.others * (1.0 - self.challengers.get(row, (0, 0.0))[1])

    def shares(self, row: int, quality: NDArray[np.floating], planned: int, others: Sequence[int]) -> Float64Array:
        """Return each expert's probability for queries of a row if all are reachable, of shape (m,)."""
        weight, _ = self.weighed(row, quality, planned, others)
        total = float(weight.sum())
        probs = weight * min(self.scale, self.most(row) / total) if total > 0 else weight
        if (found := self.challengers.get(row)) is not None and found[0] in others:
            probs[found[0]] = found[1]
        probs[planned] = 1.0 - float(probs.sum())
        return probs

    @property
    def words(self) -> str:
        return (
            f"tries other experts in {self.share:.1%} of the queries, to learn how good they are, at an expected loss "
            f"of {self.loss:.2%} of quality"
        )

    @property
    def identity(self) -> bytes:
        """All that decides a share, for a fingerprint."""
        known = b"" if self.quality is None else self.quality.tobytes()
        rest = (self.scale, self.floor, self.others, sorted(self.challengers.items()))
        return self.stderr.tobytes() + self.dear.tobytes() + known + repr(rest).encode()


def price(dear: NDArray[np.floating], planned: int, other: int) -> float:
    """Return the gain of quality that pays for an expert in place of the planned one; below 0 if it saves.

    Args:
        dear: what queries cost in units of quality, of shape (m,).
    """
    return max(float(dear[other] - dear[planned]), -MOST_SAVED)


def value_of_knowing(worse: float, error: float) -> float:
    """Mean gain of choosing after the truth is known, when one of two is predicted worse with a normal error."""
    z = worse / error
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return max(error * density - worse * normal_below(-z), 0.0)


def normal_below(z: float) -> float:
    """Return Phi(z), of the standard normal distribution."""
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def dearness(cost_usd: NDArray[np.floating], mean_usd: float) -> Float64Array:
    """Return the relative cost of queries in units of quality, of shape (k, m). The rate is that at which a gain pays
    for a rise of the mean cost, which the plan makes `mean_usd`. Next to a plan that costs nothing, every expert with a
    cost is too expensive to try."""
    amounts = cost_usd.astype(np.float64)
    if mean_usd > 0:
        return np.asarray(GAIN_FOR_DOUBLE_COST * amounts / mean_usd)
    return np.where(amounts > 0, 1e9, 0.0)


def scale_within(
    budget: float, weight: Float64Array, loss: Float64Array, mass: NDArray[np.floating], most: Float64Array
) -> float:
    """Return the largest scale of shares at which the mean loss keeps the budget; infinite if every scale does. The
    mean loss is piecewise linear in the scale: a row's part grows until its shares add up to `most`.

    Args:
        weight: (n, m) and `loss` (n, m), of every row's experts.
        mass: (n,) how much of the traffic each row is; sums to 1.
    """
    total = weight.sum(axis=1)
    rows = total > 0
    limit = most[rows] / total[rows]
    rate = mass[rows] * (weight * loss)[rows].sum(axis=1)
    if float(rate @ limit) <= budget:
        return math.inf
    order = np.argsort(limit)
    limit, rate = limit[order], rate[order]
    left = rate.sum() - np.cumsum(rate)
    at_limit = np.cumsum(rate * limit) + limit * left
    first = int(np.searchsorted(at_limit, budget))
    done = float((rate * limit)[:first].sum())
    return (budget - done) / float(rate[first:].sum())
