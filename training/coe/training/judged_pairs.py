"""Answers to one request that a judge compared in pairs: evidence beside users' ratings (docs/feedback.md). Pure.

Rows 2i and 2i + 1 of `LogTable.judged` are a pair: the answer that the client received, and the other one. Their
rewards are how far each is preferred, and add up to 1. The key is the client's, who could ask a judge to prefer
something; the weight is that key's, at most 1.

Shapes: n rows, k + 1 rows of the map, m experts.
"""

from __future__ import annotations

import numpy as np

from coe.router.types import BoolArray, Float64Array, IntArray
from coe.training.feedback_bias import counted_share
from coe.training.log_table import LogTable

PAIR_ANSWER_WEIGHT = 0.5
"""Number of answers that each answer of a pair counts as. An error for one is an error against the other. So the
difference of n pairs is as uncertain as that of n / 2 answers of each."""


def complete_pairs(kept: BoolArray) -> BoolArray:
    """Return which rows belong to pairs of which both are kept, of shape (n,)."""
    return np.repeat(kept.reshape(-1, 2).all(axis=1), 2)


def preferences(
    judged: LogTable, row: IntArray, expert: IntArray, known: Float64Array, counts: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Return the worth of each answer of a pair, on the scale of its expert's quality, of shape (n,). Also return the
    number of answers it counts as, (n,), which is less if a key exceeds its share.

    A pair only shows a difference, so its level is the mean quality of both experts.

    Args:
        row: rows of the map, (n,); `expert` (n,) are columns.
        known: qualities by all other evidence, (k+1, m), from so many answers (`counts`).
    """
    level = np.repeat(known[row, expert].reshape(-1, 2).mean(axis=1), 2)
    weight = PAIR_ANSWER_WEIGHT * judged.weight
    share = counted_share(row, judged.key, weight, counts.sum(axis=1), judged.max_key_share)
    return level + judged.reward - 0.5, weight * share
