"""nDCG@10 by ir_measures (trec_eval's `ndcg_cut_10`, Järvelin & Kekäläinen 2002), and trec_eval's order of ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coe.router.types import Float64Array

CUT = 10


def ndcg(rankings: Sequence[Sequence[int]], grades: Sequence[Mapping[int, int]]) -> Float64Array:
    """Return nDCG@10 (n,) in [0, 1] of each query's document rows, best first; grades default to 0."""
    from ir_measures import iter_calc, nDCG

    judged = {str(query): {str(row): grade for row, grade in found.items()} for query, found in enumerate(grades)}
    ranked = {
        str(query): {str(row): -float(place) for place, row in enumerate(rows[:CUT])}
        for query, rows in enumerate(rankings)
    }
    values = np.zeros(len(rankings))
    for metric in iter_calc([nDCG @ CUT], judged, ranked):
        values[int(metric.query_id)] = metric.value
    return values


def rank(scores: np.ndarray, ids: Sequence[str], count: int) -> list[int]:
    """Return the `count` best rows by score; equal scores by document id, last first, as trec_eval orders them."""
    count = min(count, len(scores))
    if count == 0:
        return []
    edge = np.partition(scores, len(scores) - count)[len(scores) - count]
    above, equal = np.flatnonzero(scores > edge), np.flatnonzero(scores == edge)
    rows = sorted([*above.tolist(), *equal.tolist()], key=lambda row: ids[row], reverse=True)
    rows.sort(key=lambda row: -float(scores[row]))
    return rows[:count]
