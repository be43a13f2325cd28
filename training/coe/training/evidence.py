"""Evidence from a log: outcomes and logged rewards as one quality matrix.

Shapes: n logged answers, k learned categories (row k is `general`), m experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coe.router.quality import QualityMatrix
from coe.router.types import GENERAL, BoolArray, Float64Array, FloatArray, IntArray
from coe.training.change_points import ChangePoint, is_stale
from coe.training.expert_map import (
    cell_sums,
    is_ungraded,
    measure_quality,
    row_numbers,
    shrink_with_guesses,
    with_levels,
    with_traffic,
    without_difficulty,
)
from coe.training.feedback_bias import counted_share
from coe.training.judged_pairs import complete_pairs, preferences
from coe.training.log_table import LogTable
from coe.training.types import OutcomeTable

MASS_PRIOR_DECISIONS = 20.0
"""Weight of the outcome table's category mix against the traffic's, in decisions (ours)."""


@dataclass(frozen=True)
class Evidence:
    """The quality matrix over `outcomes.experts`, the `outcomes` without grades that a change made worthless, and
    the number of those grades."""

    matrix: QualityMatrix
    outcomes: OutcomeTable
    n_outdated_grades: int = 0


def gather_evidence(
    outcomes: OutcomeTable,
    log: LogTable,
    categories: Sequence[str],
    changes: tuple[ChangePoint, ...] = (),
    published: Sequence[float] = (),
) -> Evidence:
    """Combine outcomes and logged rewards to one quality matrix over `outcomes.experts`.

    Users' ratings and graders' scores differ in level, and only chosen experts have rewards. So a common offset (the
    mean over cells with both, weighted by rewards) is first subtracted from the rewards. Without it the expert that
    happens to serve would gain by being rated at all (ours). Failures, which nobody rated, have no part in the offset.
    One key's feedback is limited to its share of the evidence in every cell, grades included, and so in every category
    and overall (training.feedback_bias).

    Args:
        changes: cells whose quality changed; their grades and earlier rewards are left out.
        published: published quality of each expert, as in `measure_quality`.
    """
    rows = (*(name for name in categories if name != GENERAL), GENERAL)
    believed = without_changed(outcomes, changes)
    base = measure_quality(believed, rows[:-1], published)
    prior = np.asarray(published or np.full(len(outcomes.experts), np.nan))
    keep = is_usable(log, outcomes.experts, changes)
    kept = log.rows(keep)
    row, expert = category_rows(kept, rows), kept.expert_in(outcomes.experts)
    grades = base.count.astype(np.float64)
    cell = row * len(outcomes.experts) + expert
    weight = kept.weight * counted_share(cell, kept.key, kept.weight, grades.ravel(), log.max_key_share)
    told = ~kept.is_failure
    offset = reward_offset(kept.reward[told], weight[told], base, row[told], expert[told])
    numbers = row_numbers(believed, rows[:-1])
    relative, difficulty = without_difficulty(believed.scores, numbers, len(rows) - 1)
    graded, is_guess = cell_sums(relative, numbers, len(rows) - 1), is_ungraded(grades)

    def of_cells(values: Float64Array) -> Float64Array:
        return add_cells(values, row, expert, base.quality.shape)

    gain = kept.reward - offset - difficulty[row]
    answers, rewarded = of_cells(weight), of_cells(weight * gain)
    sums, squares, counts = graded[0] + rewarded, graded[1] + of_cells(weight * gain**2), graded[2] + answers
    if log.judged is not None:
        judged = log.judged.rows(complete_pairs(is_usable(log.judged, outcomes.experts, changes)))
        add_preferences(judged, rows, outcomes.experts, (sums, squares, counts), is_guess, prior)
    quality, stderr = shrink_with_guesses(sums, squares, counts, is_guess, prior)
    quality = with_levels(quality, difficulty, counts, prior)
    matrix = replace(
        base,
        quality=quality.astype(np.float32),
        stderr=stderr.astype(np.float32),
        count=counts.astype(np.float32),
        mass=traffic_mass(log, rows, base),
    )
    matrix = with_traffic(matrix, rows, outcomes.experts, log.tokens)
    n_outdated = int(np.isfinite(outcomes.scores).sum() - np.isfinite(believed.scores).sum())
    return Evidence(matrix, believed, n_outdated)


def add_preferences(
    judged: LogTable,
    rows: tuple[str, ...],
    experts: tuple[str, ...],
    cells: tuple[Float64Array, Float64Array, Float64Array],
    is_guess: BoolArray,
    prior: Float64Array,
) -> None:
    """Add a judge's preferences to sums, sums of squares and counts of cells, each of shape (k+1, m)."""
    row, expert = category_rows(judged, rows), judged.expert_in(experts)
    worth, said = preferences(judged, row, expert, shrink_with_guesses(*cells, is_guess, prior)[0], cells[2])
    for values, new in zip(cells, (said * worth, said * worth**2, said), strict=True):
        values += add_cells(new, row, expert, values.shape)


def is_usable(log: LogTable, experts: tuple[str, ...], changes: tuple[ChangePoint, ...]) -> BoolArray:
    """Return which answers show the present quality of these experts, of shape (n,)."""
    return ~is_stale(log, changes) & (log.expert_in(experts) >= 0)


def category_rows(log: LogTable, rows: tuple[str, ...]) -> IntArray:
    """Return the row of each answer's category, of shape (n,); a category without a row has the last one, `general`."""
    row = log.category_in(rows)
    return np.where(row < 0, len(rows) - 1, row)


def traffic_mass(log: LogTable, rows: Sequence[str], base: QualityMatrix) -> FloatArray:
    """Return the mix of the traffic plus MASS_PRIOR_DECISIONS decisions of the outcome table's mix, of shape (k+1,)."""
    counts = np.array([log.traffic.get(name, 0) for name in rows], dtype=np.float64)
    mass = (counts + MASS_PRIOR_DECISIONS * base.mass) / (counts.sum() + MASS_PRIOR_DECISIONS)
    return np.asarray(mass, dtype=np.float32)


def add_cells(values: Float64Array, row: IntArray, expert: IntArray, shape: tuple[int, ...]) -> Float64Array:
    """Sum values per cell, of shape (k+1, m)."""
    flat = np.bincount(row * shape[1] + expert, weights=values, minlength=shape[0] * shape[1])
    return flat.reshape(shape).astype(np.float64)


def reward_offset(
    reward: Float64Array, weight: Float64Array, base: QualityMatrix, row: IntArray, expert: IntArray
) -> float:
    """Return the mean of reward minus measured quality over answers whose cell was graded; 0 if none was."""
    graded = base.count[row, expert] > 0
    if not weight[graded].any():
        return 0.0
    differences = reward[graded] - base.quality[row[graded], expert[graded]]
    return float(np.average(differences, weights=weight[graded]))


def without_changed(outcomes: OutcomeTable, changes: tuple[ChangePoint, ...]) -> OutcomeTable:
    """Drop the grades of changed cells, which are those of the earlier expert."""
    scores = outcomes.scores.copy()
    categories = np.array(outcomes.categories)
    for change in changes:
        if change.expert in outcomes.experts and not change.has_new_grades:
            scores[categories == change.category, outcomes.experts.index(change.expert)] = np.nan
    return replace(outcomes, scores=scores)
