"""One ranking from several: what a decision with two members searches with.

A ranking is document keys (k,) int64, best first, with the scores (k,) of the one expert that found them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retrieval.types import Arm, IntArray
from router.types import FloatArray

POOL = 100
"""Documents that each member brings to a fusion."""

Ranking = tuple[IntArray, FloatArray]

Evidence = Callable[[IntArray], FloatArray]
"""Document keys (k,) -> what the words say of them and the query, (k, `EVIDENCE`)."""


def fuse(rankings: Sequence[Ranking], arm: Arm, count: int, evidence: Evidence | None = None) -> Ranking:
    """The `count` best documents by the weighted sum of scores, each ranking's scores first brought to [0, 1].

    Convex combination (Bruch et al. 2023, "An Analysis of Fusion Functions for Hybrid Retrieval"); an arm that was
    learned adds what the words say of each document, and moves the sum so that it is in [0, 1] too. Documents of equal
    sums are in the order in which the rankings name them.

    Args:
        evidence: of the query; needed by an arm that weighs it.
    """
    if len(rankings) == 1:
        return rankings[0][0][:count], rankings[0][1][:count]
    documents, first, shares = pooled(rankings)
    total = shares @ np.array(arm.weights)
    if arm.evidence:
        assert evidence is not None
        total += evidence(documents) @ np.array(arm.evidence)
        total -= sum(min(weight, 0.0) for weight in arm.evidence)
    order = np.lexsort((first, -total))[:count]
    return documents[order], total[order].astype(np.float32)


def pooled(rankings: Sequence[Ranking]) -> tuple[IntArray, IntArray, FloatArray]:
    """The documents (k,) that any ranking names, the first place (k,) of each in the rankings one after the other, and
    their scores (k, r) in each, brought to [0, 1]; 0 where a ranking lacks the document."""
    documents, first, place = np.unique(
        np.concatenate([ranking[0] for ranking in rankings]), return_index=True, return_inverse=True
    )
    shares = np.zeros((len(documents), len(rankings)), dtype=np.float32)
    column = np.repeat(np.arange(len(rankings)), [len(ranking[0]) for ranking in rankings])
    shares[place, column] = np.concatenate([unit_scores(ranking[1]) for ranking in rankings])
    return documents.astype(np.int64), first.astype(np.int64), shares


def unit_scores(scores: FloatArray) -> FloatArray:
    """Scores (k,) to [0, 1] by their own least and greatest; all 1 when they are equal."""
    if len(scores) == 0:
        return scores
    low, high = float(scores.min()), float(scores.max())
    if high - low < 1e-9:
        return np.ones_like(scores)
    return np.asarray((scores - low) / (high - low), dtype=np.float32)
