"""nDCG@k with linear gains (Järvelin & Kekäläinen 2002), equal to trec_eval's `ndcg_cut_k`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

CUT = 10


def ndcg(ranked: Sequence[int], grades: Mapping[int, int], cut: int = CUT) -> float:
    """In [0, 1], of document rows, best first; documents that `grades` lacks have grade 0."""
    gains = [max(grades.get(int(row), 0), 0) for row in ranked[:cut]]
    ideal = discounted(sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:cut])
    return discounted(gains) / ideal if ideal > 0 else 0.0


def discounted(gains: Sequence[float]) -> float:
    return float(np.dot(gains, 1 / np.log2(np.arange(2, len(gains) + 2)))) if gains else 0.0


def rank(scores: np.ndarray, ids: Sequence[str], count: int) -> list[int]:
    """The `count` best rows by score; equal scores by document id, last first, as trec_eval orders them."""
    count = min(count, len(scores))
    if count == 0:
        return []
    edge = np.partition(scores, len(scores) - count)[len(scores) - count]
    above, equal = np.flatnonzero(scores > edge), np.flatnonzero(scores == edge)
    rows = sorted([*above.tolist(), *equal.tolist()], key=lambda row: ids[row], reverse=True)
    rows.sort(key=lambda row: -float(scores[row]))
    return rows[:count]
