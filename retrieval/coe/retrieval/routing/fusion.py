"""One ranking from several: what a decision with two members searches with.

A ranking is document keys (k,) int64, best first, with the scores (k,) of the one expert that found them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from coe.retrieval.types import BASE, EVIDENCE, Arm
from coe.router.types import FloatArray, IntArray

POOL = 100
"""Documents that each member brings to a fusion."""

PLAIN_WEIGHTS, PLAIN_EVIDENCE = (0.74, 0.0), (0.156, 0.104, 0.0)
"""Weights of cosine and BM25's score, and of `EVIDENCE`, in a plain fusion: near the best mean over dev and train
queries at which no collection is more than 0.002 below base alone (benchmarks/LOG.md)."""

Ranking = tuple[IntArray, FloatArray]

Evidence = Callable[[IntArray], FloatArray]
"""Document keys (k,) -> what the words say of them and the query, (k, `EVIDENCE`)."""


def fuse(rankings: Sequence[Ranking], arm: Arm, count: int, evidence: Evidence | None = None) -> Ranking:
    """The `count` best documents by the weighted sum of `features`; at most 1. Those of equal sums are in the order in
    which the rankings name them. A single ranking stays as it is.

    Args:
        evidence: of the query, by the last member, an expert over words; needed where there are two.
    """
    if len(rankings) == 1:
        return rankings[0][0][:count], rankings[0][1][:count]
    assert evidence is not None
    documents, first, found = features(rankings, evidence)
    used = found.shape[1] if arm.evidence else len(rankings)
    total = found[:, :used] @ np.array((*arm.weights, *arm.evidence))
    total -= sum(min(weight, 0.0) for weight in arm.evidence)
    order = np.lexsort((first, -total))[:count]
    return documents[order], total[order].astype(np.float32)


def features(rankings: Sequence[Ranking], evidence: Evidence) -> tuple[IntArray, IntArray, FloatArray]:
    """Features that a dense ranking and one by words give the documents (k,) that either names: the first place (k,)
    of each in the rankings one after the other, and (k, 2 + `EVIDENCE`) the cosine, the scaled score
    of the words, and what the words say.

    A cosine means the same for every query, while BM25's best score does not say whether its document is any good. So
    its scores are brought to [0, 1] and counted as far as the best document contains the query's words (`coverage`). A
    document that a ranking lacks counts with the least score there.
    """
    (dense, cosines), (worded, scores) = rankings
    documents, first, place = np.unique(np.concatenate([dense, worded]), return_index=True, return_inverse=True)
    found = np.zeros((len(documents), 2 + len(EVIDENCE)), dtype=np.float32)
    found[:, 2:] = evidence(documents.astype(np.int64))
    found[:, 0] = cosines.min(initial=1.0)
    found[place[: len(dense)], 0] = cosines
    if len(worded):
        best = place[len(dense) + int(scores.argmax())]
        found[place[len(dense) :], 1] = unit_scores(scores) * found[best, 2]
    return documents.astype(np.int64), first.astype(np.int64), found


def unit_scores(scores: FloatArray) -> FloatArray:
    """Scores (k,) to [0, 1] by their own least and greatest; all 1 when they are equal."""
    if len(scores) == 0:
        return scores
    low, high = float(scores.min()), float(scores.max())
    if high - low < 1e-9:
        return np.ones_like(scores)
    return np.asarray((scores - low) / (high - low), dtype=np.float32)


def fusions(expert: str, lexical: str) -> tuple[Arm, Arm]:
    """An expert fused with one over words: the plain way, in which that one finds documents and its score does not
    count, and by both scores, which is better where it searches well."""
    plain = Arm(members=(expert, lexical), weights=PLAIN_WEIGHTS, evidence=PLAIN_EVIDENCE)
    return plain, Arm(members=(expert, lexical), weights=(0.75, 0.25))


def plain_column(arms: Sequence[Arm], expert: str = BASE) -> int | None:
    """The place of that expert's plain fusion with BM25 among arms; None where it is not among them."""
    wanted = expert, PLAIN_WEIGHTS, PLAIN_EVIDENCE
    return next((i for i, arm in enumerate(arms) if (arm.members[0], arm.weights, arm.evidence) == wanted), None)
