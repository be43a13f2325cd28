"""Further ways to choose among retrieval experts, which `benchmarks/retrieval_routing.py` compares with: a multi-task
expert, choices by data set, and RouterRetriever (Lee et al. 2024, arXiv 2409.02685, section 3).

Shapes: n queries, d dimensions, m experts, p pilots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.retrieval_eval.arms import MEANING as OWN_MEANING
from benchmarks.retrieval_eval.arms import Compared, PlainFusions, Situation, best_weight, compare, convex_scores
from coe.retrieval.build_experts import first_lexical
from coe.retrieval.routing.fusion import plain_column
from coe.retrieval.routing.pilot_library import PilotLibrary
from coe.retrieval.routing.pilot_router import build_router
from coe.retrieval.training.labels import Labelled
from coe.retrieval.training.routing_tuning import chosen_scores, columns_of
from coe.retrieval.training.searcher import Searcher
from coe.retrieval.types import BASE, Arm
from coe.router.reading.features import unit_rows
from coe.router.types import FloatArray, IntArray

TIE = 1e-6
"""Scores nearer than this are equal: the first expert, which is base, gets the query."""
NEIGHBOURS = 10
MULTITASK = "multitask"
FURTHER = {
    "multitask": "every query to the one expert that was trained on all collections; no other arm may choose it",
    "hybrid_collection": "the convex sum with the weight that is best on the dev queries of the collection",
    "multitask_hybrid": "convex sum of the multi-task expert and BM25 with the one weight that is best on dev queries",
    "own": "every query to the expert of its own collection, which a user does not know",
    "data_set": "to the expert of the collection that most of the 10 nearest labelled queries come from",
    "centroid": "to the expert of the collection with the nearest centroid",
    "centroid_hybrid": "the expert of that collection, fused with BM25 as base is here",
    "pilot": "RouterRetriever as published: mean similarity to an expert's pilots",
    "pilot_max": "RouterRetriever as its released code has it: largest similarity to a pilot",
    "coe_single": "this router, one expert a query",
}
MEANING = {**OWN_MEANING, **FURTHER}


@dataclass(frozen=True)
class Multitask:
    """nDCG@10 of one collection: of the expert on test queries (n,), and fused with BM25 at each weight (n, g), on dev
    and test queries."""

    alone: FloatArray
    dev: FloatArray | None
    test: FloatArray | None


def multitask_of(searcher: Searcher) -> Multitask:
    """The scores of the expert that is named so among the searcher's experts."""
    dev, test = searcher.collection.split("dev"), searcher.collection.split("test")
    lexical = first_lexical(searcher.experts)

    def fused(split: str) -> FloatArray | None:
        queries = searcher.collection.split(split)
        if lexical is None or not len(queries):
            return None
        expert, worded = (searcher.rankings(name, queries.texts) for name in (MULTITASK, lexical))
        return convex_scores(expert, worded, queries)

    alone = searcher.arm_scores(test, [Arm(members=(MULTITASK,), weights=(1.0,))])[:, 0]
    return Multitask(alone, fused("dev") if len(dev) else None, fused("test"))


@dataclass(frozen=True)
class FurtherArms:
    """Compares all arms; `multitask` has the expert's scores by collection, `trained` the collections it saw."""

    multitask: Mapping[str, Multitask]
    trained: frozenset[str]

    def __call__(self, test: Labelled, situation: Situation, plain: PlainFusions | None) -> Compared:
        found = compare(test, situation, plain)
        scores = {**found.scores, **by_collection(test, situation, plain), **self.of_multitask(test, situation)}
        scores |= by_query(test, situation)
        return Compared({arm: scores[arm] for arm in MEANING if arm in scores}, found.decisions)

    def of_multitask(self, test: Labelled, situation: Situation) -> dict[str, FloatArray]:
        """Nothing where the expert saw a collection that is left out."""
        known = () if situation.library is None else situation.library.manifest.data_sets
        own = self.multitask.get(test.collection)
        if own is None or (test.collection in self.trained and test.collection not in known):
            return {}
        dev = [one.dev for name, one in self.multitask.items() if name in situation.dev and one.dev is not None]
        weight = best_weight(dev)
        fused = {} if weight is None or own.test is None else {"multitask_hybrid": own.test[:, weight]}
        return {"multitask": own.alone, **fused}


def by_collection(test: Labelled, situation: Situation, plain: PlainFusions | None) -> dict[str, FloatArray]:
    """The expert of the query's collection, and a weight of the plain fusion for it."""
    found: dict[str, FloatArray] = {}
    if (column := situation.column(test.collection)) is not None:
        found["own"] = test.scores[:, column]
    dev = situation.dev.get(test.collection)
    weight = best_weight([part.convex for part in (situation.dev.values() if dev is None else [dev])])
    if plain is not None and weight is not None:
        found["hybrid_collection"] = plain.convex[:, weight]
    return found


def by_query(test: Labelled, situation: Situation) -> dict[str, FloatArray]:
    """The arms that look at the query; without a library this router's alone."""
    library = situation.library
    base = library.manifest.base_fingerprint if library else ""
    alone = build_router(library, base_fingerprint=base, experts=situation.experts, may_fuse=False)
    scores = {"coe_single": chosen_scores(alone, situation.arms, test)}
    if library is None:
        return scores
    place = {arm: column for column, arm in enumerate(library.arms)}
    singles, columns = [place[arm] for arm in alone.arms], columns_of(alone, situation.arms)
    for name, over in (("pilot", np.mean), ("pilot_max", np.max)):
        chosen = columns[choose(library, singles, test.embeddings, over)]
        scores[name] = test.scores[np.arange(len(test)), chosen]
    nearest = nearest_centroid(test.embeddings, library)
    scores["centroid"] = by_data_set(test, nearest, situation.column)
    fusion = partial(fusion_column, situation)
    if fusion(BASE) is not None:
        scores["centroid_hybrid"] = by_data_set(test, nearest, fusion)
    scores["data_set"] = by_data_set(test, most_of_neighbours(test.embeddings, library), situation.column)
    return scores


def fusion_column(situation: Situation, expert: str) -> int | None:
    """Column of an expert's plain fusion with BM25; None when it may not serve."""
    return plain_column(situation.arms, expert) if expert in situation.experts else None


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


def pilots_of(library: PilotLibrary, columns: Sequence[int]) -> tuple[FloatArray, IntArray]:
    """Unit rows (p, d), and the expert (p,) that each is a pilot of, as a place in the library's `columns` (m,)."""
    valid = np.where(library.measured[:, columns], library.scores[:, columns], -np.inf)
    winner = (valid >= valid.max(axis=1, keepdims=True) - TIE).argmax(axis=1)
    groups, member = np.unique(np.stack([library.data_set, winner]), axis=1, return_inverse=True)
    centroids = [library.embeddings[member == group].mean(axis=0) for group in range(groups.shape[1])]
    return unit_rows(np.array(centroids, dtype=np.float32)), groups[1]


def choose(
    library: PilotLibrary, columns: Sequence[int], embeddings: FloatArray, over: Callable[..., FloatArray]
) -> IntArray:
    """(n,) expert of each query, as a place in `columns`: the one whose pilots are most similar, by their mean (the
    paper) or their largest similarity (its released code), which is `over`. An expert without pilots gets none."""
    pilots, owner = pilots_of(library, columns)
    cosine = embeddings @ pilots.T
    owners = np.unique(owner)
    scores = np.stack([over(cosine[:, owner == expert], axis=1) for expert in owners], axis=1)
    return np.asarray(owners[scores.argmax(axis=1)], dtype=np.int64)
