"""The arms that are compared: each turns the scores of all experts on test queries into one score per query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.retrieval.plain_arms import best_on, plain_fusions
from retrieval.routing.pilot_library import PilotLibrary, RoutingMethod
from retrieval.routing.pilot_router import build_router
from retrieval.training.build_library import with_settings, without_data_set
from retrieval.training.labels import Labelled
from retrieval.training.routing_tuning import scores_of
from retrieval.types import BASE, Arm, RetrievalDecision
from router.types import FloatArray

MEANING = {
    "base": "every query to the base encoder",
    "multitask": "every query to the one adapter that was trained on all collections; no other arm may choose it",
    "bm25": "every query to BM25",
    "rrf": "base and BM25 fused by reciprocal rank",
    "hybrid": "base and BM25 fused at the one weight that is best on the dev queries of all collections",
    "hybrid_collection": "base and BM25 fused at the weight that is best on the dev queries of the collection",
    "multitask_hybrid": "the multi-task adapter and BM25 fused at the one weight that is best on dev queries",
    "own": "every query to the expert of its own collection, which a user does not know",
    "data_set": "to the expert of the collection that most of the 10 nearest labelled queries come from",
    "centroid": "to the expert of the collection with the nearest centroid",
    "centroid_hybrid": "the expert of that collection, fused with BM25 at the one weight that is best for base",
    "pilot": "RouterRetriever as published: mean similarity to an expert's pilots",
    "pilot_max": "RouterRetriever as its released code has it: largest similarity to a pilot",
    "coe_single": "this router, one expert a query",
    "coe": "this router, which may fuse an expert with BM25, by fixed or by learned weights",
    "collection_oracle": "the single expert that is best on the test queries of the collection",
    "query_oracle": "the single expert that is best for each query",
}
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
"""What anybody would try first: routing has to be better than the best of these."""
NEIGHBOURS = 10
NO_WORDS = "there is no expert over words, or no dev query"


@dataclass(frozen=True)
class Situation:
    """The knowledge available when queries of one collection arrive: the library, the experts that may serve, and the
    dev queries. `multitask` is an adapter of all collections, which is compared with and not routed to; None where
    there is none, or the collection must be unknown to it."""

    library: PilotLibrary | None
    experts: tuple[str, ...]
    arms: tuple[Arm, ...]
    dev: tuple[Labelled, ...] = ()
    multitask: str | None = None

    def without(self, collection: str) -> Situation:
        """Removes what was prepared for that collection."""
        library = None if self.library is None else without_data_set(self.library, collection)
        if library is not None and not len(library.keys):
            library = None
        experts = tuple(name for name in self.experts if name != collection)
        return Situation(library, experts, self.arms, tuple(p for p in self.dev if p.collection != collection))

    @property
    def lexical(self) -> str | None:
        """The expert over words that dense experts are fused with."""
        return next((arm.members[1] for arm in self.arms if len(arm.members) == 2), None)

    def single_columns(self) -> list[int]:
        """Columns of arms that are one expert who may serve."""
        return [i for i, arm in enumerate(self.arms) if len(arm.members) == 1 and arm.members[0] in self.experts]

    def column(self, expert: str, weight: float | None = None) -> int | None:
        """Column of that expert alone, or fused with BM25 at that weight; None when it may not serve."""
        columns = self.single_columns() if weight is None else plain_fusions(self.arms, expert)
        may_serve = expert in self.experts
        wanted = (i for i in columns if self.arms[i].members[0] == expert and weight in (None, self.arms[i].weights[0]))
        return next(wanted, None) if may_serve else None

    def best_fusion(self, expert: str, collection: str | None = None) -> int | None:
        """Column of the expert's fusion with BM25 at the weight that is best on dev queries, of one collection where
        that has some; None where nothing tells."""
        own = [part for part in self.dev if part.collection == collection and len(part)]
        return best_on(own or self.dev, plain_fusions(self.arms, expert))


@dataclass(frozen=True)
class Compared:
    """Scores (n,) by arm, why others are absent, and the decisions behind `coe`."""

    scores: dict[str, FloatArray]
    absent: dict[str, str]
    decisions: list[RetrievalDecision]


def compare(test: Labelled, situation: Situation, rrf: FloatArray | None) -> Compared:
    """Every arm on the test queries of one collection; `rrf` (n,) are the scores of that one."""
    scores: dict[str, FloatArray] = {}
    absent: dict[str, str] = {}
    for arm, expert in {"base": BASE, "bm25": "bm25", "own": test.collection}.items():
        column = situation.column(expert)
        if column is None:
            absent[arm] = f"there is no expert '{expert}'"
        else:
            scores[arm] = test.scores[:, column]
    plain, lacking = plain_columns(test.collection, situation)
    scores |= {arm: test.scores[:, column] for arm, column in plain.items()}
    absent |= lacking
    if rrf is None:
        absent["rrf"] = NO_WORDS
    else:
        scores["rrf"] = rrf
    decisions, routed = routed_arms(test, situation)
    scores |= routed
    if situation.library is None:
        pilots = ("data_set", "centroid", "pilot", "pilot_max")
        absent |= dict.fromkeys(pilots, "there is no labelled query")
    singles = test.scores[:, situation.single_columns()]
    scores["collection_oracle"] = singles[:, int(singles.mean(axis=0).argmax())]
    scores["query_oracle"] = singles.max(axis=1)
    return Compared({name: scores[name] for name in MEANING if name in scores}, absent, decisions)


def plain_columns(collection: str, situation: Situation) -> tuple[dict[str, int], dict[str, str]]:
    """The column of each arm that takes one for every query of a collection, and why others are absent."""
    columns: dict[str, int | None] = {
        "hybrid": situation.best_fusion(BASE),
        "hybrid_collection": situation.best_fusion(BASE, collection),
    }
    absent = dict.fromkeys(columns, NO_WORDS)
    if situation.multitask is not None:
        alone = Arm(members=(situation.multitask,), weights=(1.0,))
        columns |= {
            "multitask": situation.arms.index(alone),
            "multitask_hybrid": situation.best_fusion(situation.multitask),
        }
    absent |= dict.fromkeys(
        ("multitask", "multitask_hybrid"),
        "no multi-task adapter was given, or it was trained on what is left out here",
    )
    found = {arm: column for arm, column in columns.items() if column is not None}
    return found, {arm: reason for arm, reason in absent.items() if arm not in found}


def routed_arms(test: Labelled, situation: Situation) -> tuple[list[RetrievalDecision], dict[str, FloatArray]]:
    """The arms that look at the query; without a library those of this router alone."""
    library = situation.library

    def choose(method: RoutingMethod, may_fuse: bool) -> list[RetrievalDecision]:
        used = library
        if library and method is not library.manifest.settings.method:
            used = with_settings(library, library.manifest.settings.model_copy(update={"method": method}))
        fingerprint = library.manifest.base_fingerprint if library else ""
        router = build_router(
            used,
            base_fingerprint=fingerprint,
            experts=situation.experts,
            may_fuse=may_fuse,
            lexical=situation.lexical,
        )
        return router.choose(test.embeddings)

    decisions = choose(RoutingMethod.GAIN, True)
    scores = {"coe": scores_of(situation.arms, test, decisions)}
    scores["coe_single"] = scores_of(situation.arms, test, choose(RoutingMethod.GAIN, False))
    if library is None:
        return decisions, scores
    scores["pilot"] = scores_of(situation.arms, test, choose(RoutingMethod.MEAN, False))
    scores["pilot_max"] = scores_of(situation.arms, test, choose(RoutingMethod.MAX, False))
    nearest, hybrid = nearest_centroid(test.embeddings, library), situation.best_fusion(BASE)
    scores["centroid"] = by_data_set(test, situation, nearest)
    if hybrid is not None:
        weight = situation.arms[hybrid].weights[0]
        scores["centroid_hybrid"] = by_data_set(test, situation, nearest, weight)
    scores["data_set"] = by_data_set(test, situation, most_of_neighbours(test.embeddings, library))
    return decisions, scores


def by_data_set(
    test: Labelled, situation: Situation, data_sets: Sequence[str], weight: float | None = None
) -> FloatArray:
    """Scores when each query goes to the expert named like the data set, alone or fused with BM25 at that weight; to
    base where there is none."""
    base = situation.column(BASE, weight)
    columns = [situation.column(name, weight) for name in data_sets]
    chosen = [base if column is None else column for column in columns]
    return test.scores[np.arange(len(test)), np.array(chosen, dtype=np.int64)]


def nearest_centroid(embeddings: FloatArray, library: PilotLibrary) -> list[str]:
    present = np.unique(library.data_set)
    centres = np.stack([library.embeddings[library.data_set == number].mean(axis=0) for number in present])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return [library.manifest.data_sets[present[i]] for i in (embeddings @ centres.T).argmax(axis=1)]


def most_of_neighbours(embeddings: FloatArray, library: PilotLibrary) -> list[str]:
    count = min(NEIGHBOURS, len(library.keys))
    nearest = np.argpartition(-(embeddings @ library.embeddings.T), count - 1, axis=1)[:, :count]
    votes = [np.bincount(row, minlength=len(library.manifest.data_sets)) for row in library.data_set[nearest]]
    return [library.manifest.data_sets[int(counts.argmax())] for counts in votes]
