"""The arms that are compared: each turns the scores of all experts on test queries into one score per query.

Shapes: n queries, g weights of a plain fusion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from eval.retrieval import router_retriever
from retrieval.build_experts import first_lexical
from retrieval.routing.fusion import Ranking, plain_column, unit_scores
from retrieval.routing.pilot_library import PilotLibrary
from retrieval.routing.pilot_router import build_router
from retrieval.training.build_library import without_data_set
from retrieval.training.collection import Queries
from retrieval.training.labels import Labelled
from retrieval.training.ndcg import CUT, ndcg
from retrieval.training.routing_tuning import chosen_scores, columns_of
from retrieval.training.searcher import Searcher
from retrieval.types import BASE, Arm, RetrievalDecision
from router.features import unit_rows
from router.types import FloatArray

RANK_OFFSET = 60
"""Added to each rank before its reciprocal is taken (Cormack et al. 2009)."""

WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the dense expert, from which one is chosen on dev queries."""
MEANING = {
    "base": "every query to the base encoder",
    "multitask": "every query to the one adapter that was trained on all collections; no other arm may choose it",
    "bm25": "every query to BM25",
    "rrf": "base and BM25 fused by reciprocal rank",
    "hybrid": "convex sum of base and BM25, each scaled to [0, 1], with the one weight that is best on all dev queries",
    "hybrid_collection": "the same with the weight that is best on the dev queries of the collection",
    "multitask_hybrid": "convex sum of the multi-task adapter and BM25 with the one weight that is best on dev queries",
    "own": "every query to the expert of its own collection, which a user does not know",
    "data_set": "to the expert of the collection that most of the 10 nearest labelled queries come from",
    "centroid": "to the expert of the collection with the nearest centroid",
    "centroid_hybrid": "the expert of that collection, fused with BM25 as base is here",
    "pilot": "RouterRetriever as published: mean similarity to an expert's pilots",
    "pilot_max": "RouterRetriever as its released code has it: largest similarity to a pilot",
    "coe_single": "this router, one expert a query",
    "coe": "this router, which may fuse an expert with BM25, by fixed or by learned weights",
    "collection_oracle": "the single expert that is best on the test queries of the collection",
    "query_oracle": "the single expert that is best for each query",
}
LABELS = {
    "base": "Base alone",
    "multitask": "Multi-task adapter",
    "bm25": "BM25 alone",
    "rrf": "Base and BM25, by rank",
    "hybrid": "Base and BM25, one weight",
    "hybrid_collection": "Base and BM25, a weight per collection",
    "multitask_hybrid": "Multi-task adapter and BM25",
    "own": "Expert of the query's collection",
    "data_set": "Nearest labelled queries",
    "centroid": "Nearest centroid",
    "centroid_hybrid": "Nearest centroid and BM25",
    "pilot": "RouterRetriever, mean",
    "pilot_max": "RouterRetriever, largest",
    "coe_single": "This router, one expert",
    "coe": "This router",
    "collection_oracle": "Best expert per collection (hindsight)",
    "query_oracle": "Best expert per query (hindsight)",
}
"""Arm -> the name that readers know it by."""
PLAIN = (
    "rrf",
    "hybrid",
    "hybrid_collection",
    "multitask",
    "multitask_hybrid",
    "data_set",
    "centroid",
    "centroid_hybrid",
)
"""Plain ways that anybody would try first: routing has to be better than the best of these."""
NEIGHBOURS = 10
NO_MULTITASK = "no multi-task adapter was given, or it was trained on what is left out here"


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

    def fusion(self, expert: str) -> int | None:
        """Column of its plain fusion with BM25; None when it may not serve."""
        return plain_column(self.arms, expert) if expert in self.experts else None


@dataclass(frozen=True)
class Compared:
    """Scores (n,) by arm, why others are absent, and the decisions behind `coe`."""

    scores: dict[str, FloatArray]
    absent: dict[str, str]
    decisions: list[RetrievalDecision]


def compare(
    test: Labelled, situation: Situation, plain: PlainFusions | None, multitask: FloatArray | None = None
) -> Compared:
    """Every arm on the test queries of one collection, on which `plain` and the multi-task adapter (n,) were measured
    too; None leaves it out."""
    scores: dict[str, FloatArray] = {}
    absent: dict[str, str] = {}
    for arm, expert in {"base": BASE, "bm25": "bm25", "own": test.collection}.items():
        column = situation.column(expert)
        if column is None:
            absent[arm] = f"there is no expert '{expert}'"
        else:
            scores[arm] = test.scores[:, column]
    if multitask is not None:
        scores["multitask"] = multitask
    fused, lacking = plain_scores(test.collection, situation, plain, knows_all=multitask is not None)
    scores |= fused
    absent |= lacking
    decisions, routed = routed_arms(test, situation)
    scores |= routed
    if situation.library is None:
        pilots = ("data_set", "centroid", "pilot", "pilot_max")
        absent |= dict.fromkeys(pilots, "there is no labelled query")
    singles = test.scores[:, situation.single_columns()]
    scores["collection_oracle"] = singles[:, int(singles.mean(axis=0).argmax())]
    scores["query_oracle"] = singles.max(axis=1)
    return Compared({name: scores[name] for name in MEANING if name in scores}, absent, decisions)


def plain_scores(
    collection: str, situation: Situation, plain: PlainFusions | None, *, knows_all: bool
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Scores (n,) of each plain fusion on the queries of a collection, and why others are absent."""
    found: dict[str, FloatArray] = {}
    if plain is not None:
        found["rrf"] = plain.rrf
        one = best_weight([part.base for part in situation.dev.values()])
        own = best_weight([situation.dev[collection].base]) if collection in situation.dev else one
        if one is not None and own is not None:
            found |= {"hybrid": plain.base[:, one], "hybrid_collection": plain.base[:, own]}
        adapter = best_weight([part.multitask for part in situation.dev.values() if part.multitask is not None])
        if knows_all and plain.multitask is not None and adapter is not None:
            found["multitask_hybrid"] = plain.multitask[:, adapter]
    absent = dict.fromkeys(("rrf", "hybrid", "hybrid_collection"), "there is no expert over words, or no dev query")
    if not knows_all:
        absent |= dict.fromkeys(("multitask", "multitask_hybrid"), NO_MULTITASK)
    return found, {arm: reason for arm, reason in absent.items() if arm not in found}


def routed_arms(test: Labelled, situation: Situation) -> tuple[list[RetrievalDecision], dict[str, FloatArray]]:
    """The arms that look at the query; without a library those of this router alone."""
    library = situation.library
    base = library.manifest.base_fingerprint if library else ""
    router = partial(build_router, library, base_fingerprint=base, experts=situation.experts)
    own, alone = router(lexical=situation.lexical), router(may_fuse=False)
    decisions, scores = own.choose(test.embeddings), {"coe": chosen_scores(own, situation.arms, test)}
    scores["coe_single"] = chosen_scores(alone, situation.arms, test)
    if library is None:
        return decisions, scores
    place = {arm: column for column, arm in enumerate(library.arms)}
    singles, columns = [place[arm] for arm in alone.arms], columns_of(alone, situation.arms)
    for name, over in (("pilot", np.mean), ("pilot_max", np.max)):
        chosen = columns[router_retriever.choose(library, singles, test.embeddings, over)]
        scores[name] = test.scores[np.arange(len(test)), chosen]
    nearest = nearest_centroid(test.embeddings, library)
    scores["centroid"] = by_data_set(test, nearest, situation.column)
    if situation.fusion(BASE) is not None:
        scores["centroid_hybrid"] = by_data_set(test, nearest, situation.fusion)
    scores["data_set"] = by_data_set(test, most_of_neighbours(test.embeddings, library), situation.column)
    return decisions, scores


def by_data_set(test: Labelled, data_sets: Sequence[str], column_of: Callable[[str], int | None]) -> FloatArray:
    """Scores when each query goes to the arm of the expert named like the data set; to base's where there is none."""
    base = column_of(BASE)
    columns = [column_of(name) for name in data_sets]
    chosen = [base if column is None else column for column in columns]
    return test.scores[np.arange(len(test)), np.array(chosen, dtype=np.int64)]


def nearest_centroid(embeddings: FloatArray, library: PilotLibrary) -> list[str]:
    present = np.unique(library.data_set)
    centres = unit_rows(np.stack([library.embeddings[library.data_set == number].mean(axis=0) for number in present]))
    return [library.manifest.data_sets[present[i]] for i in (embeddings @ centres.T).argmax(axis=1)]


def most_of_neighbours(embeddings: FloatArray, library: PilotLibrary) -> list[str]:
    count = min(NEIGHBOURS, len(library.keys))
    nearest = np.argpartition(-(embeddings @ library.embeddings.T), count - 1, axis=1)[:, :count]
    votes = [np.bincount(row, minlength=len(library.manifest.data_sets)) for row in library.data_set[nearest]]
    return [library.manifest.data_sets[int(counts.argmax())] for counts in votes]
