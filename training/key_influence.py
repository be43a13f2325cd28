"""Influence of a key's feedback: no key is more than a share of the evidence. Pure.

What one key says is weighed down until it is at most `max_share` of all
that is known of a cell, graded answers included; so a few keys may still add to grades, and outweigh them only
together. A key that is trusted, and the only key of a log, is not limited: it has number `UNLIMITED`, and its questions
count one by one.

Shapes: n answers with feedback.
"""

from __future__ import annotations

import math

import numpy as np

from router.types import Float64Array, IntArray

UNLIMITED = -1


def min_keys(max_share: float) -> int:
    """Fewest keys of which none has more than that share: five for a fifth."""
    return math.ceil(1.0 / max_share - 1e-9)


def cap_level(totals: Float64Array, others: float, max_share: float) -> float:
    """The largest cap t on each key's total at which no key exceeds its share of the whole: the largest t with
    t <= share x (others + sum min(total, t)). Infinite if no key exceeds its share without a cap; 0 if no cap can keep
    every key within it.

    Args:
        totals: (k,) what each limited key says.
        others: what is not limited.
    """
    ranked = np.sort(totals)[::-1]
    rest = float(ranked.sum())
    if len(ranked) == 0 or ranked[0] <= max_share * (others + rest) * (1 + 1e-12):
        return math.inf
    for capped, total in enumerate(ranked, start=1):
        rest -= float(total)
        if max_share * capped >= 1.0 - 1e-12:
            return float(total)  # so many equal keys do not exceed the share each
        found = max_share * (others + rest) / (1.0 - max_share * capped)
        if capped == len(ranked) or found >= ranked[capped]:
            return max(found, 0.0)
    return 0.0


def counted_share(
    group: IntArray, key: IntArray, weight: Float64Array, others: Float64Array, max_share: float
) -> Float64Array:
    """(n,) share of each answer's weight that counts, so that in no group a limited key exceeds its share.

    Args:
        group: (n,) number of the cell that each answer is evidence of; `others` (groups,) what else is known of each.
        key: (n,) number of the key that said it, `UNLIMITED` where it is not limited.
    """
    counted = np.ones(len(group))
    for number in np.unique(group[key >= 0]):
        inside = group == number
        limited = np.flatnonzero(inside & (key >= 0))
        free = float(weight[inside & (key < 0)].sum())
        names, member = np.unique(key[limited], return_inverse=True)
        totals = np.bincount(member, weights=weight[limited], minlength=len(names)).astype(np.float64)
        most = cap_level(totals, float(others[number]) + free, max_share)
        counted[limited] = np.minimum(1.0, most / np.maximum(totals, 1e-12))[member]
    return counted


def clusters(question: IntArray, key: IntArray) -> IntArray:
    """(n,) cluster of each answer, for the bootstrap: one limited key, or else one question."""
    return np.where(key >= 0, -1 - key, question)
