"""The arms that are compared: each turns the scores of all experts on test queries into one score per query.

Shapes: n queries, g weights of a plain fusion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from coe.retrieval.build_experts import first_lexical
from coe.retrieval.routing.fusion import Ranking, unit_scores
from coe.retrieval.routing.pilot_library import PilotLibrary
from coe.retrieval.routing.pilot_router import build_router
from coe.retrieval.training.build_library import without_data_set
from coe.retrieval.training.collection import Queries
from coe.retrieval.training.labels import Labelled
from coe.retrieval.training.ndcg import CUT, ndcg
from coe.retrieval.training.routing_tuning import chosen_scores
from coe.retrieval.training.searcher import Searcher
from coe.retrieval.types import BASE, Arm, RetrievalDecision
from coe.router.types import FloatArray

RANK_OFFSET = 60
"""Added to each rank before its reciprocal is taken (Cormack et al. 2009)."""

WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the dense expert, from which one is chosen on dev queries."""
MEANING = {
    "base": "every query to the base encoder",
    "bm25": "every query to BM25",
    "rrf": "base and BM25 fused by reciprocal rank",
    "hybrid": "convex sum of base and BM25, each scaled to [0, 1], with the one weight that is best on all dev queries",
    "coe": "this router, which may fuse an expert with BM25, by fixed or by learned weights",
    "collection_oracle": "the single expert that is best on the test queries of the collection",
    "query_oracle": "the single expert that is best for each query",
}
LABELS = {
    "base": "Base alone",
    "bm25": "BM25 alone",
    "rrf": "Base and BM25, by rank",
    "hybrid": "Base and BM25, one weight",
    "coe": "This router",
    "collection_oracle": "Best expert per collection (hindsight)",
    "query_oracle": "Best expert per query (hindsight)",
}
"""Arm -> the name that readers know it by."""
PLAIN = ("rrf", "hybrid")
"""Plain ways that anybody would try first: routing has to be better than the best of these."""


@dataclass(frozen=True)
class PlainFusions:
    """nDCG@10 of one collection's queries by reciprocal rank of base and BM25 (n,), and by their convex sum at each of
    `WEIGHTS` (n, g)."""

    rrf: FloatArray
    convex: FloatArray


def plain_fusions(searcher: Searcher, queries: Queries) -> PlainFusions | None:
    """None without an expert over words, and without a query."""
    lexical = first_lexical(searcher.experts)
    if lexical is None or not len(queries):
        return None
    worded, dense = (searcher.rankings(name, queries.texts) for name in (lexical, BASE))
    fused = [by_reciprocal_rank(pair)[:CUT] for pair in zip(dense, worded, strict=True)]
    return PlainFusions(ndcg(fused, queries.grades).astype(np.float32), convex_scores(dense, worded, queries))


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


@dataclass(frozen=True)
class Situation:
    """The knowledge available when queries of one collection arrive: the library, the experts that may serve, and what
    plain fusions have on the dev queries of each collection by its name."""

    library: PilotLibrary | None
    experts: tuple[str, ...]
    arms: tuple[Arm, ...]
    dev: Mapping[str, PlainFusions] = field(default_factory=dict)

    def without(self, collection: str) -> Situation:
        """Removes what was prepared for that collection."""
        library = None if self.library is None else without_data_set(self.library, collection)
        if library is not None and not len(library.keys):
            library = None
        experts = tuple(name for name in self.experts if name != collection)
        dev = {name: found for name, found in self.dev.items() if name != collection}
        return Situation(library, experts, self.arms, dev)

    @property
    def lexical(self) -> str | None:
        """The expert over words that dense experts are fused with."""
        return next((arm.members[1] for arm in self.arms if len(arm.members) == 2), None)

    def single_columns(self) -> list[int]:
        """Columns of the arms that consist of one expert, if that may serve."""
        return [i for i, arm in enumerate(self.arms) if len(arm.members) == 1 and arm.members[0] in self.experts]

    def column(self, expert: str) -> int | None:
        """Column of that expert alone; None when it may not serve."""
        return next((i for i in self.single_columns() if self.arms[i].members[0] == expert), None)


@dataclass(frozen=True)
class Compared:
    """Scores (n,) by arm, and the decisions behind `coe`."""

    scores: dict[str, FloatArray]
    decisions: list[RetrievalDecision]


def compare(test: Labelled, situation: Situation, plain: PlainFusions | None) -> Compared:
    """Every arm on the test queries of one collection, on which `plain` was measured too; None leaves it out."""
    scores: dict[str, FloatArray] = {}
    for arm, expert in {"base": BASE, "bm25": "bm25"}.items():
        if (column := situation.column(expert)) is not None:
            scores[arm] = test.scores[:, column]
    weight = best_weight([part.convex for part in situation.dev.values()])
    if plain is not None:
        scores["rrf"] = plain.rrf
    if plain is not None and weight is not None:
        scores["hybrid"] = plain.convex[:, weight]
    library = situation.library
    base = library.manifest.base_fingerprint if library else ""
    router = build_router(library, base_fingerprint=base, experts=situation.experts, lexical=situation.lexical)
    scores["coe"] = chosen_scores(router, situation.arms, test)
    singles = test.scores[:, situation.single_columns()]
    scores["collection_oracle"] = singles[:, int(singles.mean(axis=0).argmax())]
    scores["query_oracle"] = singles.max(axis=1)
    return Compared(scores, router.choose(test.embeddings))
