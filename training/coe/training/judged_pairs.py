"""Answers to one request that a judge compared in pairs: evidence beside what people say (docs/feedback.md). Pure.

Rows 2i and 2i + 1 of `LogTable.judged` are a pair: the answer that the client got, and the other one. Their rewards say
how far each is preferred, and add up to 1. Its key is the client's, who could tell a judge what to prefer, and its
weight that key's, at most 1.

Shapes: n rows, k + 1 rows of the map, m experts.
"""

from __future__ import annotations

import numpy as np

from coe.router.types import BoolArray, Float64Array, IntArray
from coe.training.feedback_bias import counted_share
from coe.training.log_table import LogTable

HALF = 0.5
"""Answers that one of a pair counts as: what errs for one errs against the other, so the difference of n pairs is as
uncertain as that of n / 2 answers of each."""


def together(kept: BoolArray) -> BoolArray:
    """(n,) rows of pairs of which both are kept."""
    return np.repeat(kept.reshape(-1, 2).all(axis=1), 2)


def preferences(
    judged: LogTable, row: IntArray, expert: IntArray, known: Float64Array, counts: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """(n,) what each answer of a pair is worth, on the scale of what is known of their experts, and as how many answers
    it counts: less where a key says too much.

    A pair tells a difference, so its level is the mean of what is known of both.

    Args:
        row: (n,) of the map; `expert` (n,) columns.
        known: (k+1, m) qualities by all else, from so many answers (`counts`).
    """
    level = np.repeat(known[row, expert].reshape(-1, 2).mean(axis=1), 2)
    weight = HALF * judged.weight
    share = counted_share(row, judged.key, weight, counts.sum(axis=1), judged.max_key_share)
    return level + judged.reward - 0.5, weight * share
