"""One ranking from several: what a decision with two members searches with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.types import FloatArray

POOL = 100
"""Documents that each member brings to a fusion."""


@dataclass(frozen=True)
class Ranking:
    """Document ids, best first, with the scores of the one expert that found them (k,)."""

    ids: tuple[str, ...]
    scores: FloatArray


def fuse(rankings: Sequence[Ranking], weights: Sequence[float], count: int) -> Ranking:
    """The `count` best documents by the weighted sum of scores, each ranking's scores first brought to [0, 1].

    Convex combination (Bruch et al. 2023, "An Analysis of Fusion Functions for Hybrid Retrieval"). A document that a
    member did not find has 0 there. Equal sums keep the order of the first ranking that holds them.
    """
    if len(rankings) == 1:
        return Ranking(rankings[0].ids[:count], rankings[0].scores[:count])
    total: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for document, share in zip(ranking.ids, unit_scores(ranking.scores), strict=True):
            total[document] = total.get(document, 0.0) + weight * float(share)
    best = sorted(total.items(), key=lambda item: -item[1])[:count]
    return Ranking(tuple(name for name, _ in best), np.array([value for _, value in best], dtype=np.float32))


def unit_scores(scores: FloatArray) -> FloatArray:
    """Scores (k,) to [0, 1] by their own least and greatest; all 1 when they are equal."""
    if len(scores) == 0:
        return scores
    low, high = float(scores.min()), float(scores.max())
    if high - low < 1e-9:
        return np.ones_like(scores)
    return np.asarray((scores - low) / (high - low), dtype=np.float32)
