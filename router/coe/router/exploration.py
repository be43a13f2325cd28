"""Exploration: other experts than the planned one answer a small share of the queries, so that the log says how good
those are. Pure.

Where expert w is planned, expert e is tried with probability

    p_e = g_e min(scale, most / sum g),    g_e = value_e / (loss_e + LEAST_LOSS),
    value_e = s phi(d / s) - d Phi(-d / s),    d = q_w - q_e,    s^2 = stderr_w^2 + stderr_e^2 + DRIFT^2

`value` is what knowing which of the two is better would gain on average (the expected value of perfect information,
Raiffa & Schlaifer 1961): large where their predicted qualities lie within their errors, next to nothing elsewhere.
`loss` is the predicted loss of quality, max(d, 0), and what the expert costs more in money, at the rate of the gate.
`scale` is solved with the map: the mean loss over the traffic's mix of categories is at most the policy's budget.
Nobody is tried whose quality, one standard error added, is below `floor` of the best one's: known to be hopeless.

Shapes: n rows of a solved table (categories, or sample queries), k rows of the map, m experts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from coe.router.policy_config import GAIN_FOR_DOUBLE_COST
from coe.router.types import Float64Array

MOST_EXPLORED = 0.5
"""Share of the queries of a category that exploration draws at most, however little it costs (ours; benchmarks/LOG.md
has others, and other powers of value and loss)."""

DRIFT = 0.03
"""Standard error of every comparison that no number of answers removes, because experts change (ours)."""

LEAST_LOSS = 0.01
"""Loss that trying an expert of the same predicted quality counts as in the allocation, not in the budget (ours)."""

TAIL, GRID = 6.0, 600
"""Standard errors on either side, and points between them, of the sum for the chances of being best: errors below 1e-6
(ours)."""

CACHED_ROWS = 1024
"""Rows of policies whose chances of being best are kept: all of them are asked for when a router is loaded."""

FLOOR = 0.5
"""Share of the best one's quality below which, one standard error added, an expert is known to be hopeless (ours)."""


@dataclass(frozen=True)
class Exploration:
    """Shares of the queries by which experts are tried.

    `stderr` (k, m) of the measured qualities; `dear` (k, m) what an expert's query costs, in units of quality;
    `quality` (k, m) newer than what the router predicts, where there is any. `guessed` are rows without grades. `share`
    and `loss` are the expected share of explored queries and the mean loss of quality, costs included; `unbounded` is
    the part of that loss in guessed rows. `floor` is the share of the best one's quality below which, by a standard
    error, nobody is tried; `known` (k, m) the measured quality, for `general`.
    """

    stderr: Float64Array
    dear: Float64Array
    scale: float = math.inf
    most: float = MOST_EXPLORED
    share: float = 0.0
    loss: float = 0.0
    quality: Float64Array | None = None
    guessed: frozenset[int] = frozenset()
    unbounded: float = 0.0
    floor: float = 0.0
    known: Float64Array | None = None

    def hopeful(self, row: int, quality: NDArray[np.floating], planned: int, others: Sequence[int]) -> list[int]:
        """The others that are not known to be hopeless. Of whom nothing is known, the error is wide. What lands in the
        last row, `general`, may be of any category, so their means over all categories count there as well."""
        checks = [(quality, self.stderr[row])]
        if self.known is not None and row == len(self.stderr) - 1:
            checks.append((self.known.mean(axis=0), np.sqrt((self.stderr**2).sum(axis=0)) / len(self.stderr)))
        least = [self.floor * float(found[[planned, *others]].max()) for found, _ in checks]
        return [
            e
            for e in others
            if all(found[e] + error[e] >= at for (found, error), at in zip(checks, least, strict=True))
        ]

    def weighed(
        self, row: int, quality: NDArray[np.floating], planned: int, others: Sequence[int]
    ) -> tuple[Float64Array, Float64Array]:
        """(m,) weights, 0 but for the others that are not hopeless, and the losses of queries of a row with predicted
        quality (m,): g, or the chances of being best in a guessed row."""
        quality = quality if self.quality is None else self.quality[row]
        others = self.hopeful(row, quality, planned, others)
        weight, loss = np.zeros(len(quality)), np.zeros(len(quality))
        for e in others:
            worse = float(quality[planned]) - float(quality[e])
            error = math.hypot(self.stderr[row, planned], self.stderr[row, e], DRIFT)
            loss[e] = max(worse, 0.0) + max(self.dear[row, e] - self.dear[row, planned], 0.0)
            weight[e] = value_of_knowing(worse, error) / (loss[e] + LEAST_LOSS)
        if row in self.guessed:
            own = [planned, *others]
            dearer = np.maximum(self.dear[row, own] - self.dear[row, planned], 0.0)
            errors = np.hypot(self.stderr[row, own], DRIFT / math.sqrt(2.0))
            weight[own[1:]] = chances_of_best(tuple((quality[own] - dearer).tolist()), tuple(errors.tolist()))[1:]
        return weight, loss

    def shares(self, row: int, quality: NDArray[np.floating], planned: int, others: Sequence[int]) -> Float64Array:
        """(m,) probabilities with which queries of a row go to each expert if all are reachable."""
        weight, _ = self.weighed(row, quality, planned, others)
        total = float(weight.sum())
        is_scaled = total > 0 and row not in self.guessed
        probs = weight * min(self.scale, self.most / total) if is_scaled else weight
        probs[planned] = max(1.0 - float(probs.sum()), 0.0)  # chances of the others may sum to a little more than 1
        return probs

    @property
    def words(self) -> str:
        return (
            f"tries other experts in {self.share:.1%} of the queries, to learn how good they are, at an expected loss "
            f"of {self.loss:.2%} of quality"
            + (f" ({self.unbounded:.2%} of it where no answer is graded, outside the budget)" if self.unbounded else "")
        )

    @property
    def identity(self) -> bytes:
        """All that decides a share, for a fingerprint."""
        newer = b" ".join(b"" if each is None else each.tobytes() for each in (self.quality, self.known))
        return (
            self.stderr.tobytes()
            + self.dear.tobytes()
            + newer
            + repr((self.scale, self.most, sorted(self.guessed), self.floor)).encode()
        )


@lru_cache(maxsize=CACHED_ROWS)
def chances_of_best(means: tuple[float, ...], errors: tuple[float, ...]) -> tuple[float, ...]:
    """Probabilities that each of m independent normal qualities is the highest, by a sum over `GRID` points.

    Of 30 experts it takes milliseconds, and requests that exclude different experts ask for the same."""
    mean, error = np.array(means), np.array(errors)
    at = np.linspace((mean - TAIL * error).max(), (mean + TAIL * error).max(), GRID)
    z = (at - mean[:, None]) / error[:, None]
    below = np.maximum(np.vectorize(math.erfc)(-z / math.sqrt(2.0)) / 2.0, 1e-300)
    density = np.exp(np.log(below).sum(axis=0) - np.log(below) - z * z / 2.0) / error[:, None]
    return tuple((density.sum(axis=1) / density.sum()).tolist())


def value_of_knowing(worse: float, error: float) -> float:
    """Mean gain of choosing after the truth is known, when one of two is predicted worse with a normal error."""
    z = worse / error
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return max(error * density - worse * math.erfc(z / math.sqrt(2)) / 2, 0.0)


def dearness(cost_usd: NDArray[np.floating], mean_usd: float) -> Float64Array:
    """(k, m) what queries cost in units of quality, at the rate at which a gain pays for a rise of the mean cost, which
    the plan makes `mean_usd`. Next to a plan that costs nothing, whatever costs is too dear to try."""
    amounts = cost_usd.astype(np.float64)
    if mean_usd > 0:
        return np.asarray(GAIN_FOR_DOUBLE_COST * amounts / mean_usd)
    return np.where(amounts > 0, 1e9, 0.0)


def scale_within(
    budget: float, weight: Float64Array, loss: Float64Array, mass: NDArray[np.floating], most: float
) -> float:
    """The largest scale of shares at which the mean loss keeps the budget; infinite if every scale does.

    The mean loss is piecewise linear in the scale: a row's part grows until its shares add up to `most`.

    Args:
        weight: (n, m) and `loss` (n, m), of every row's experts.
        mass: (n,) how much of the traffic each row is; sums to 1.
    """
    total = weight.sum(axis=1)
    rows = total > 0
    limit = most / total[rows]
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
