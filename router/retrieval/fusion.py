"""One ranking from several: what a decision with two members searches with.

A ranking is document keys (k,) int64, best first, with the scores (k,) of the one expert that found them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.retrieval.records import IntArray
from router.types import FloatArray

POOL = 100
"""Documents that each member brings to a fusion."""

Ranking = tuple[IntArray, FloatArray]


def fuse(rankings: Sequence[Ranking], weights: Sequence[float], count: int) -> Ranking:
    """The `count` best documents by the weighted sum of scores, each ranking's scores first brought to [0, 1].

    Convex combination (Bruch et al. 2023, "An Analysis of Fusion Functions for Hybrid Retrieval"). A document that a
    member did not find has 0 there. Documents of equal sums stand in the order in which the rankings name them.
    """
    if len(rankings) == 1:
        return rankings[0][0][:count], rankings[0][1][:count]
    keys = np.concatenate([ranking[0] for ranking in rankings])
    shares = np.concatenate(
        [weight * unit_scores(ranking[1]) for ranking, weight in zip(rankings, weights, strict=True)]
    )
    documents, first, place = np.unique(keys, return_index=True, return_inverse=True)
    total = np.bincount(place, weights=shares, minlength=len(documents))
    order = np.lexsort((first, -total))[:count]
    return documents[order].astype(np.int64), total[order].astype(np.float32)


def unit_scores(scores: FloatArray) -> FloatArray:
    """Scores (k,) to [0, 1] by their own least and greatest; all 1 when they are equal."""
    if len(scores) == 0:
        return scores
    low, high = float(scores.min()), float(scores.max())
    if high - low < 1e-9:
        return np.ones_like(scores)
    return np.asarray((scores - low) / (high - low), dtype=np.float32)
