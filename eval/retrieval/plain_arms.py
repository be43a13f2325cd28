"""Fusions with BM25 that anybody would try first: one rule for every query. n queries, g weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.build_experts import first_lexical
from retrieval.routing.fusion import Ranking, unit_scores
from retrieval.training.collection import Queries
from retrieval.training.ndcg import CUT, ndcg
from retrieval.training.searcher import Searcher
from retrieval.types import BASE
from router.types import FloatArray

RANK_OFFSET = 60
"""Added to each rank before its reciprocal is taken (Cormack et al. 2009)."""

WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the dense expert, from which one is chosen on dev queries."""


@dataclass(frozen=True)
class PlainFusions:
    """nDCG@10 of one collection's queries by reciprocal rank of base and BM25 (n,), and by a convex sum at each of
    `WEIGHTS` (n, g), of base and of the multi-task adapter, which is None where there is none."""

    rrf: FloatArray
    base: FloatArray
    multitask: FloatArray | None


def plain_fusions(searcher: Searcher, queries: Queries, multitask: str) -> PlainFusions | None:
    """None without an expert over words, and without a query."""
    lexical = first_lexical(searcher.experts)
    if lexical is None or not len(queries):
        return None
    worded, dense = (searcher.rankings(name, queries.texts) for name in (lexical, BASE))
    adapter = searcher.rankings(multitask, queries.texts) if multitask in searcher.experts else None
    fused = [by_reciprocal_rank(pair)[:CUT] for pair in zip(dense, worded, strict=True)]
    return PlainFusions(
        ndcg(fused, queries.grades).astype(np.float32),
        convex_scores(dense, worded, queries),
        None if adapter is None else convex_scores(adapter, worded, queries),
    )


def convex_scores(dense: Sequence[Ranking], worded: Sequence[Ranking], queries: Queries) -> FloatArray:
    """(n, g) nDCG@10 at each of `WEIGHTS`."""
    columns = [
        ndcg([by_convex_sum(*pair, weight)[:CUT] for pair in zip(dense, worded, strict=True)], queries.grades)
        for weight in WEIGHTS
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def by_convex_sum(dense: Ranking, worded: Ranking, weight: float) -> list[int]:
    """All documents, best first, by weighted scores that are each brought to [0, 1] (Bruch et al. 2023); those of equal
    sums in the order in which the rankings name them."""
    total: dict[int, float] = defaultdict(float)
    for (rows, scores), share in ((dense, weight), (worded, 1 - weight)):
        for row, score in zip(rows.tolist(), unit_scores(scores).tolist(), strict=True):
            total[row] += share * score
    return sorted(total, key=lambda row: -total[row])


def by_reciprocal_rank(rankings: Sequence[Ranking]) -> list[int]:
    """As above by the sum of 1 / (60 + rank)."""
    total: dict[int, float] = defaultdict(float)
    for rows, _ in rankings:
        for place, row in enumerate(rows.tolist()):
            total[row] += 1 / (RANK_OFFSET + 1 + place)
    return sorted(total, key=lambda row: -total[row])


def best_weight(dev: Sequence[FloatArray]) -> int | None:
    """The column of the best mean over collections of the mean over their dev queries (n, g); None without any."""
    return int(np.mean([part.mean(axis=0) for part in dev], axis=0).argmax()) if dev else None
