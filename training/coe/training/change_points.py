"""Change points of an expert's quality on a category, so that older measurements are no longer trusted.

If a provider replaces a model or an adapter is retrained, earlier rewards say nothing about the expert that answers
now. Pure. Shapes: n rewards of one cell in order of time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coe.router.types import BoolArray, Float64Array, IntArray
from coe.training.log_table import LogTable

CONFIDENCE_DELTA = 0.01
"""Probability of finding a change anywhere in a log that has none (ours)."""

MIN_SIDE = 20
"""Fewest rewards before and after a change (ours)."""

MIN_SHARED = 5
"""Fewest rewards of other keys on each side of a change (ours)."""

Z_SHARED = 1.96
"""Standard errors that a change must reach without any one key, at the place found with all keys."""


@dataclass(frozen=True)
class ChangePoint:
    """A change of an expert's quality on a category from `before` to `after`, mean rewards, at Unix time `at`.

    `model` is the model that answers since, if it differs from the one before. Then no difference of rewards is needed,
    and both means are 0 if nothing was rated. `has_new_grades`: the expert was graded after the change.
    """

    category: str
    expert: str
    at: float
    before: float
    after: float
    model: str = ""
    has_new_grades: bool = False


def last_change(rewards: Float64Array, delta: float) -> int:
    """Return the first row after the last change, 0 if there was none. The search cuts at the most significant
    place, then searches the part after it again."""
    start = 0
    while len(rewards) - start >= 2 * MIN_SIDE:
        cut = best_cut(rewards[start:], delta)
        if cut == 0:
            break
        start += cut
    return start


def best_cut(rewards: Float64Array, delta: float) -> int:
    """Return the most significant cut of a row of rewards; 0 if none is significant at `delta`.

    The statistic is the likelihood ratio of one change of the mean at an unknown place. It is the largest standardised
    difference of the means of both parts, over all cuts that leave each at least MIN_SIDE rewards.
    """
    n = len(rewards)
    sums, squares = np.cumsum(rewards), np.cumsum(rewards**2)
    left = np.arange(MIN_SIDE, n - MIN_SIDE + 1, dtype=np.float64)
    at, right = left.astype(np.int64) - 1, n - left
    before, after = sums[at] / left, (sums[-1] - sums[at]) / right
    within = squares[-1] - left * before**2 - right * after**2
    variance = np.maximum(within / max(n - 2, 1), 1e-4)
    z = np.abs(before - after) / np.sqrt(variance * (1.0 / left + 1.0 / right))
    best = int(z.argmax())
    return int(left[best]) if chance_of_cut(float(z[best]), MIN_SIDE / n) < delta else 0


def chance_of_cut(z: float, edge: float) -> float:
    """Return the probability that the largest of all cuts reaches z without a change; `edge` is the smallest share.

    (z - 1/z) phi(z) ln((1 - edge)^2 / edge^2) + 4 phi(z) / z (Miller & Siegmund 1982, eq. 8), for large z.
    """
    if z <= 1.0:
        return 1.0
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    spread = 2 * math.log(max((1 - edge) / edge, 1.0))
    return min(1.0, (z - 1 / z) * density * spread + 4 * density / z)


def is_shared(rewards: Float64Array, key: IntArray, cut: int) -> bool:
    """Return whether a change at row `cut` of rewards (n,) remains without the answers of any one limited key (n,).
    The means of both parts must differ in the same direction as with all keys, by `Z_SHARED` standard errors."""
    after = np.arange(len(rewards)) >= cut
    sign = np.sign(rewards[after].mean() - rewards[~after].mean()) if 0 < cut < len(rewards) else 0.0
    for name in np.unique(key[key >= 0]) if cut else ():
        parts = [rewards[(key != name) & side] for side in (~after, after)]
        if min(len(part) for part in parts) < MIN_SHARED:
            return False
        within = sum(float(((part - part.mean()) ** 2).sum()) for part in parts) / (sum(map(len, parts)) - 2)
        error = math.sqrt(max(within, 1e-4) * sum(1 / len(part) for part in parts))
        if sign * (parts[1].mean() - parts[0].mean()) < Z_SHARED * error:
            return False
    return True


def find_change_points(log: LogTable) -> tuple[ChangePoint, ...]:
    """Find the last change of every cell (a category and an expert), newest first.

    Each cell is searched alone, and all cells of an expert together: a replaced model changes everywhere at once, which
    shows sooner. A change makes grades and earlier answers worthless, so one that rests on a single key does not count
    (`is_shared`).
    """
    numbers = log.category.astype(np.int64) * max(len(log.experts), 1) + log.expert
    rows_of = {
        (int(number) // len(log.experts), int(number) % len(log.experts)): np.flatnonzero(numbers == number)
        for number in np.unique(numbers)
    }
    delta = CONFIDENCE_DELTA / max(len(rows_of) + len(log.experts), 1)
    starts = {}
    for cell, rows in rows_of.items():
        start = last_change(log.reward[rows], delta)
        starts[cell] = start if is_shared(log.reward[rows], log.key[rows], start) else 0
    changes = []
    for expert in range(len(log.experts)):
        own = {cell: rows for cell, rows in rows_of.items() if cell[1] == expert}
        together = expert_wide_change(log, {cell: rows[starts[cell] :] for cell, rows in own.items()}, delta)
        for cell, rows in own.items():
            at = float(log.at[rows[starts[cell]]])
            if together is not None and at < together:
                changes.append(change_of(log, cell, rows, int(np.searchsorted(log.at[rows], together)), together))
            elif starts[cell]:
                changes.append(change_of(log, cell, rows, starts[cell], at))
    return tuple(sorted(changes, key=lambda change: -change.at))


def expert_wide_change(log: LogTable, rows_of: Mapping[tuple[int, int], IntArray], delta: float) -> float | None:
    """Return the time at which all cells of an expert changed together, in Unix seconds; None if no change is
    significant at `delta`. `rows_of` are the rows of each cell (category, expert).

    The search uses rewards less the mean of their cell, in order of time, so a change of the category mix does not
    count.
    """
    if len(rows_of) < 2:
        return None
    rows = np.concatenate(list(rows_of.values()))
    residuals = np.concatenate([log.reward[own] - log.reward[own].mean() for own in rows_of.values()])
    order = np.argsort(rows, kind="stable")
    cut = last_change(residuals[order], delta)
    if not is_shared(residuals[order], log.key[rows[order]], cut):
        return None
    return float(log.at[rows[order][cut]]) if cut else None


def change_of(log: LogTable, cell: tuple[int, int], rows: IntArray, cut: int, at: float) -> ChangePoint:
    """Build the change of a cell at row `cut`; `after` equals `before` if the cell has no reward since."""
    before = float(log.reward[rows[:cut]].mean())
    after = float(log.reward[rows[cut:]].mean()) if cut < len(rows) else before
    return ChangePoint(log.categories[cell[0]], log.experts[cell[1]], at, before, after)


def replaced_models(
    log: LogTable, categories: Sequence[str], graded_at: Mapping[str, float]
) -> tuple[ChangePoint, ...]:
    """Return a change in every category for each expert whose answers name another model than before.

    Args:
        graded_at: expert -> Unix time of its newest grades.
    """
    return tuple(
        ChangePoint(
            category,
            change.expert,
            change.at,
            mean_reward(log, category, change.expert, log.at < change.at),
            mean_reward(log, category, change.expert, log.at >= change.at),
            change.after,
            graded_at.get(change.expert, 0.0) > change.at,
        )
        for change in log.model_changes
        for category in categories
    )


def in_cell(log: LogTable, category: str, expert: str) -> BoolArray:
    """Select an expert's answers in a category, as a mask of shape (n,)."""
    inside = (log.category_in((category,)) == 0) & (log.expert_in((expert,)) == 0)
    return np.asarray(inside, dtype=np.bool_)


def mean_reward(log: LogTable, category: str, expert: str, keep: BoolArray) -> float:
    """Return the mean reward of the kept answers of a cell; 0 without any."""
    rewards = log.reward[in_cell(log, category, expert) & keep]
    return float(rewards.mean()) if len(rewards) else 0.0


def is_stale(log: LogTable, changes: tuple[ChangePoint, ...]) -> BoolArray:
    """Select answers of a changed cell from before its change, which say nothing about the present expert, (n,)."""
    stale = np.zeros(len(log), dtype=bool)
    for change in changes:
        stale |= in_cell(log, change.category, change.expert) & (log.at < change.at)
    return stale


def is_outdated(log: LogTable, changes: tuple[ChangePoint, ...]) -> BoolArray:
    """Select (n,) a category's answers from before the last change of any of its experts, whichever expert answered.
    An estimate of a router's present worth leaves out all: leaving out one expert's would bias it."""
    outdated = np.zeros(len(log), dtype=bool)
    for change in changes:
        if not change.model or (in_cell(log, change.category, change.expert) & (log.at < change.at)).any():
            outdated |= (log.category_in((change.category,)) == 0) & (log.at < change.at)
    return outdated
