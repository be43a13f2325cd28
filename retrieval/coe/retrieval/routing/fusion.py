"""Fusion of rankings. A ranking is keys of documents (k,) int64, best first, with one expert's scores (k,)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from coe.retrieval.types import BASE, EVIDENCE, Arm
from coe.router.types import FloatArray, IntArray

POOL = 100
"""Number of documents that each member contributes to a fusion."""

PLAIN_WEIGHTS, PLAIN_EVIDENCE = (0.74, 0.0), (0.156, 0.104, 0.0)
"""Weights of cosine and BM25's score, and of `EVIDENCE`, in a plain fusion: near the best mean over dev and train
queries at which no collection is more than 0.002 below base alone (benchmarks/LOG.md)."""

Ranking = tuple[IntArray, FloatArray]

Evidence = Callable[[IntArray], FloatArray]
"""A function from document keys (k,) to the word features of document and query, shape (k, `EVIDENCE`)."""


def fuse(rankings: Sequence[Ranking], arm: Arm, count: int, evidence: Evidence | None = None) -> Ranking:
    """Return the `count` best documents by the weighted sum of `features`, which is at most 1.

    Equal sums keep the order of the rankings. A single ranking stays unchanged.

    Args:
        evidence: of the query, by the last member, which searches words; needed for two members.
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
    """Return documents (k,) of a dense and a word ranking, their first places (k,), and features (k, 2 + `EVIDENCE`).

    The features are the cosine, the scaled score of the words, and the word features. A cosine means the same for every
    query, while BM25's best score does not show whether its document is good. So BM25's scores are scaled to [0, 1] and
    multiplied by the best document's share of the query's words (`coverage`). A document that a ranking lacks gets its
    least score.
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
    """Scale scores (k,) to [0, 1] by their minimum and maximum; all 1 if they are equal."""
    if len(scores) == 0:
        return scores
    low, high = float(scores.min()), float(scores.max())
    if high - low < 1e-9:
        return np.ones_like(scores)
    return np.asarray((scores - low) / (high - low), dtype=np.float32)


def fusions(expert: str, lexical: str) -> tuple[Arm, Arm]:
    """Return two fusions of an expert with one over words: the plain one, and one by both scores.

    The plain one uses the words to find documents and ignores their score; the other is better if the expert searches
    well.
    """
    plain = Arm(members=(expert, lexical), weights=PLAIN_WEIGHTS, evidence=PLAIN_EVIDENCE)
    return plain, Arm(members=(expert, lexical), weights=(0.75, 0.25))


def plain_column(arms: Sequence[Arm], expert: str = BASE) -> int | None:
    """Return the place of an expert's plain fusion with BM25 among arms; None if there is none."""
    wanted = expert, PLAIN_WEIGHTS, PLAIN_EVIDENCE
    return next((i for i, arm in enumerate(arms) if (arm.members[0], arm.weights, arm.evidence) == wanted), None)
