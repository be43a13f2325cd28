"""What anybody would try before routing: fusions with BM25 by one rule for all queries. n queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from retrieval.routing.fusion import Ranking
from retrieval.training.collection import Queries
from retrieval.training.labels import Labelled
from retrieval.training.ndcg import CUT, ndcg
from retrieval.training.searcher import Searcher
from retrieval.types import Arm
from router.types import FloatArray

RANK_OFFSET = 60
"""Added to each rank before its reciprocal is taken (Cormack et al. 2009)."""


def reciprocal_rank_scores(searcher: Searcher, queries: Queries, members: Sequence[str]) -> FloatArray:
    """(n,) nDCG@10 of the members' rankings fused by the sum of 1 / (60 + rank)."""
    found = [searcher.rankings(name, queries.texts) for name in members]
    ranked = [by_reciprocal_rank(rankings)[:CUT] for rankings in zip(*found, strict=True)]
    return ndcg(ranked, queries.grades).astype(np.float32)


def by_reciprocal_rank(rankings: Sequence[Ranking]) -> list[int]:
    """All documents, best first; those of equal sums in the order in which the rankings name them."""
    total: dict[int, float] = defaultdict(float)
    for rows, _ in rankings:
        for place, row in enumerate(rows.tolist()):
            total[row] += 1 / (RANK_OFFSET + 1 + place)
    return sorted(total, key=lambda row: -total[row])


def plain_fusions(arms: Sequence[Arm], expert: str) -> list[int]:
    """Places of an expert's fusions at fixed weights."""
    return [i for i, a in enumerate(arms) if a.members[0] == expert and len(a.members) == 2 and a.learned_on is None]


def best_on(dev: Sequence[Labelled], columns: Sequence[int]) -> int | None:
    """The column of the best mean over collections of the mean over their dev queries; None without either."""
    parts = [part.scores[:, columns].mean(axis=0) for part in dev if len(part)]
    return int(columns[int(np.mean(parts, axis=0).argmax())]) if parts and columns else None
