"""RouterRetriever with its two best experts fused where neither is clearly nearer: an idea that needs searches of its
own, because a pair of experts is no arm. n queries, k experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from eval.retrieval.situation import Situation
from eval.retrieval.variants import Pilots
from retrieval.routing.fusion import Ranking
from retrieval.training.labels import Labelled
from retrieval.training.ndcg import CUT, ndcg
from retrieval.training.searcher import Searcher
from router.types import FloatArray

MEANING = {
    "pilot_top_two": "as published, with the two best experts fused by reciprocal rank where their lead is small"
}

LEADS = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, np.inf)
"""Differences in mean similarity below which the two are fused; dev queries choose one."""

RANK_OFFSET = 60
"""Of reciprocal rank fusion (Cormack et al. 2009)."""

Rankings = Callable[[str], list[Ranking]]
"""The rankings of some queries by an expert, from its name."""


def searched_once(searcher: Searcher, queries: Labelled) -> Rankings:
    """Each expert searches when it is first asked for."""
    return cache(lambda name: searcher.rankings(name, queries.queries.texts))


@dataclass(frozen=True)
class TopTwo:
    """nDCG@10 of the best expert and of the two best fused (n,), and by how much the first is more similar (n,)."""

    single: FloatArray
    fused: FloatArray
    lead: FloatArray

    def scores(self, small: float) -> FloatArray:
        """(n,) when leads below `small` are fused."""
        return np.where(self.lead < small, self.fused, self.single)


def top_two(rankings: Rankings, queries: Labelled, situation: Situation) -> TopTwo | None:
    """None without a library, or with one expert only."""
    columns = situation.single_columns()
    if situation.library is None or len(columns) < 2:
        return None
    pilots = Pilots(situation.library, columns)
    similar = pilots.means(queries.embeddings, len(columns), np.ones(len(pilots.owner)))
    order, at = np.argsort(-similar, axis=1, kind="stable")[:, :2], np.arange(len(queries))
    names = [situation.arms[column].members[0] for column in columns]
    fused = [reciprocal([rankings(names[number])[row] for number in pair]) for row, pair in enumerate(order.tolist())]
    return TopTwo(
        single=queries.scores[at, np.array(columns)[order[:, 0]]],
        fused=ndcg(fused, queries.queries.grades).astype(np.float32),
        lead=(similar[at, order[:, 0]] - similar[at, order[:, 1]]).astype(np.float32),
    )


def reciprocal(rankings: Sequence[Ranking]) -> list[int]:
    """The best documents by the sum of 1 / (60 + rank); of equals the one that was found first."""
    points: dict[int, float] = {}
    for rows, _ in rankings:
        for place, row in enumerate(rows.tolist(), start=1):
            points[row] = points.get(row, 0.0) + 1 / (RANK_OFFSET + place)
    return sorted(points, key=lambda row: -points[row])[:CUT]


def best_lead(dev: Sequence[TopTwo]) -> float:
    """The one of `LEADS` with the best mean over dev collections; the smallest of equals."""
    measured = [found for found in dev if len(found.lead)]
    if not measured:
        return 0.0
    return max(LEADS, key=lambda lead: round(float(np.mean([found.scores(lead).mean() for found in measured])), 9))
