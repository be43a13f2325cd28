"""The arms that are compared: each turns the scores of all experts on test queries into one score per query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    "own": "every query to the expert of its own collection, which a user does not know",
    "data_set": "to the expert of the collection that most of the 10 nearest labelled queries come from",
    "centroid": "to the expert of the collection with the nearest centroid",
    "pilot": "RouterRetriever as published: mean similarity to an expert's pilots",
    "pilot_max": "RouterRetriever as its released code has it: largest similarity to a pilot",
    "coe_single": "this router, one expert a query",
    "coe": "this router, which may fuse an expert with BM25, by fixed or by learned weights",
    "collection_oracle": "the single expert that is best on the test queries of the collection",
    "query_oracle": "the single expert that is best for each query",
}
NEIGHBOURS = 10


@dataclass(frozen=True)
class Situation:
    """The knowledge available when queries of one collection arrive: the library and the experts that may serve."""

    library: PilotLibrary | None
    experts: tuple[str, ...]
    arms: tuple[Arm, ...]

    def without(self, collection: str) -> Situation:
        """Removes what was prepared for that collection."""
        library = None if self.library is None else without_data_set(self.library, collection)
        if library is not None and not len(library.keys):
            library = None
        return Situation(library, tuple(name for name in self.experts if name != collection), self.arms)

    @property
    def lexical(self) -> str | None:
        """The expert over words that dense experts are fused with."""
        return next((arm.members[1] for arm in self.arms if len(arm.members) == 2), None)

    def single_columns(self) -> list[int]:
        """Columns of arms that are one expert who may serve."""
        return [i for i, arm in enumerate(self.arms) if len(arm.members) == 1 and arm.members[0] in self.experts]

    def column(self, expert: str) -> int | None:
        """Column of that expert alone; None when it may not serve."""
        return next((i for i in self.single_columns() if self.arms[i].members[0] == expert), None)


@dataclass(frozen=True)
class Compared:
    """Scores (n,) by arm, why others are absent, and the decisions behind `coe`."""

    scores: dict[str, FloatArray]
    absent: dict[str, str]
    decisions: list[RetrievalDecision]


def compare(test: Labelled, situation: Situation, multitask: FloatArray | None = None) -> Compared:
    """Every arm on the test queries of one collection; `multitask` (n,) are the scores of that one adapter."""
    scores: dict[str, FloatArray] = {}
    absent: dict[str, str] = {}
    for arm, expert in {"base": BASE, "bm25": "bm25", "own": test.collection}.items():
        column = situation.column(expert)
        if column is None:
            absent[arm] = f"there is no expert '{expert}'"
        else:
            scores[arm] = test.scores[:, column]
    if multitask is None:
        absent["multitask"] = "no multi-task adapter was given, or it was trained on what is left out here"
    else:
        scores["multitask"] = multitask
    decisions, routed = routed_arms(test, situation)
    scores |= routed
    if situation.library is None:
        pilots = ("data_set", "centroid", "pilot", "pilot_max")
        absent |= dict.fromkeys(pilots, "there is no labelled query")
    singles = test.scores[:, situation.single_columns()]
    scores["collection_oracle"] = singles[:, int(singles.mean(axis=0).argmax())]
    scores["query_oracle"] = singles.max(axis=1)
    return Compared({name: scores[name] for name in MEANING if name in scores}, absent, decisions)


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
    scores["centroid"] = by_data_set(test, situation, nearest_centroid(test.embeddings, library))
    scores["data_set"] = by_data_set(test, situation, most_of_neighbours(test.embeddings, library))
    return decisions, scores


def by_data_set(test: Labelled, situation: Situation, data_sets: Sequence[str]) -> FloatArray:
    """Scores when each query goes to the expert named like the data set; to base where there is none."""
    base = situation.column(BASE)
    columns = [situation.column(name) for name in data_sets]
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
