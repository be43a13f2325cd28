"""Evidence from requests that several experts answered: who agreed with whom, and how right that makes each.

Dawid & Skene (1979) with one accuracy for each expert and category: an answer is right as far as those who gave it are
usually right, and an expert is usually right as far as its answers are. Agreement alone could be that of experts who
err alike, so it counts only beside what graded answers and feedback say of an expert, and never for more than that.

Shapes: n panels (requests), m experts, k + 1 rows of the map, c calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.types import BoolArray, Float64Array, IntArray
from training.change_points import ChangePoint
from training.expert_map import cell_sums, without_difficulty
from training.panels import Panels
from training.types import NOT_COMPARED

OPTIONS = 10
"""Answers that a wrong one is drawn from (ours)."""

MOST_ANCHORED = 50.0
"""Graded answers and feedback of a cell that its accuracy is held by, at most: beyond, agreement could not move it
(ours)."""

LEAST_ANCHORED = 5.0
"""Such answers of an expert in all categories, without which its agreement teaches nothing (ours)."""

BOUNDS = (0.02, 0.98)
ROUNDS = 30

Cells = tuple[Float64Array, Float64Array, Float64Array]


@dataclass(frozen=True)
class Anchors:
    """Evidence of graded answers and feedback for each cell: `quality` and `count` (k + 1, m)."""

    quality: Float64Array
    count: Float64Array

    @property
    def is_known(self) -> BoolArray:
        """(m,) experts of whom enough is known that they may vouch for others."""
        return np.asarray(self.count.sum(axis=0) >= LEAST_ANCHORED)


def agreed_cells(
    panels: Panels, rows: Sequence[str], experts: Sequence[str], anchors: Anchors, changes: Sequence[ChangePoint] = ()
) -> Cells:
    """`agreement_cells` of the panels, over rows of the map and experts, without answers of before a change."""
    keys, row, at = panels.keys(experts), panels.row_in(rows), np.array(panels.at)
    for change in changes:
        if change.category in rows and change.expert in experts:
            is_stale = (row == rows.index(change.category)) & (at < change.at)
            keys[is_stale, experts.index(change.expert)] = NOT_COMPARED
    return agreement_cells(keys, row, np.array(panels.served, dtype=np.int64), np.array(panels.reward), anchors)


def agreement_cells(keys: IntArray, row: IntArray, served: IntArray, reward: Float64Array, anchors: Anchors) -> Cells:
    """Sum, sum of squares and count of each cell as `cell_sums` has them, of beliefs instead of scores.

    A panel is compared with its own level, as a prompt is that several experts were graded on: later experts of a
    strategy are asked where the first were unsure. No cell counts for more than its anchors.

    Args:
        keys: (n, m); `row`, `served` and `reward` (n,) as in `Panels`.
    """
    k = len(anchors.quality) - 1
    keys = np.where(anchors.is_known, keys, NOT_COMPARED)
    belief = beliefs(keys, row, served, reward, anchors)
    is_shared = np.isfinite(belief).sum(axis=1) >= 2
    relative, _ = without_difficulty(belief[is_shared].astype(np.float32), row[is_shared], k)
    sums, squares, counts = cell_sums(relative, row[is_shared], k)
    share = np.minimum(1.0, anchors.count / np.maximum(counts, 1e-9))
    return sums * share, squares * share, counts * share


def beliefs(keys: IntArray, row: IntArray, served: IntArray, reward: Float64Array, anchors: Anchors) -> Float64Array:
    """(n, m) probability that each expert's answer is right, by expectation and maximisation; 0 where it gave none, NaN
    where it was not asked."""
    was_asked = keys != NOT_COMPARED
    votes = keys[:, :, None] == np.arange(max(int(keys.max(initial=0)), 0) + 1)
    given = votes.any(axis=1)
    said = odds_of_feedback(served, reward, votes.shape[2])
    unseen = np.log(np.maximum(OPTIONS - given.sum(axis=1), 1.0))
    held = np.minimum(anchors.count, MOST_ANCHORED) + 1.0
    accuracy = np.clip(anchors.quality, *BOUNDS)
    found = np.zeros(keys.shape)
    for _ in range(ROUNDS):
        weight = np.log(accuracy * (OPTIONS - 1) / (1 - accuracy))[row]
        utility = np.where(given, (votes * weight[:, :, None]).sum(axis=1) + said, -np.inf)
        top = np.maximum(utility.max(axis=1), unseen)
        raised = np.exp(utility - top[:, None])
        right = raised / (raised.sum(axis=1) + np.exp(unseen - top))[:, None]
        found = (votes * right[:, None, :]).sum(axis=2)
        sums, _, counts = cell_sums(np.where(was_asked, found, np.nan), row, len(accuracy) - 1)
        accuracy = np.clip((held * anchors.quality + sums) / (held + counts), *BOUNDS)
    return np.where(was_asked, found, np.nan)


def odds_of_feedback(served: IntArray, reward: Float64Array, answers: int) -> Float64Array:
    """(n, a) log-odds that feedback gives the served answer; 0 for the others."""
    sure = np.clip(np.where(np.isnan(reward), 0.5, reward), 0.05, 0.95)
    return np.where(served[:, None] == np.arange(answers), np.log(sure / (1 - sure))[:, None], 0.0)
