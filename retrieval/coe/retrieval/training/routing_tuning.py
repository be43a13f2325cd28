"""The choice of routing settings: on dev queries, and on each domain's queries in turn as if it had never been seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from operator import itemgetter

import numpy as np

from coe.retrieval.routing.gains import GainModel
from coe.retrieval.routing.pilot_library import PilotLibrary, RoutingSettings
from coe.retrieval.routing.pilot_router import RetrievalRouter, build_router
from coe.retrieval.training.build_library import with_settings, without_data_set
from coe.retrieval.training.labels import Labelled
from coe.retrieval.types import Arm
from coe.router.types import FloatArray, IntArray

TEMPERATURES = (0.013, 0.016, 0.02, 0.03, 0.04, 0.05, 0.08)
PRIOR_MASSES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
MARGINS = (0.0, 0.005, 0.01)

HARMLESS = 0.001
"""Tolerated loss of mean nDCG@10 against the plain arm, for collections that the library does not know."""


def tuned(library: PilotLibrary, dev: Sequence[Labelled], expert_fingerprints: Mapping[str, str]) -> PilotLibrary:
    """Return the library with settings chosen on dev queries, with and without fusion; unchanged if there are none."""
    if not dev:
        return library
    fused, single = (best_settings(library, dev, expert_fingerprints, may_fuse) for may_fuse in (True, False))
    return with_settings(library, fused, single)


@dataclass(frozen=True)
class Served:
    """Queries with base embeddings (n, d), and nDCG@10 (n, m) under the arms of the model that serves them."""

    model: GainModel
    embeddings: FloatArray
    scores: FloatArray

    def masses(self, temperature: float) -> FloatArray:
        """Return masses (n, s) as the model takes them."""
        return self.model.domains.masses(self.embeddings, temperature)[0]

    def mean(self, masses: FloatArray, settings: RoutingSettings) -> float:
        """Return the mean nDCG@10 of the arms that the settings choose."""
        chosen = self.model.under(settings).predicted(masses)[0].argmax(axis=1)
        return float(self.scores[np.arange(len(chosen)), chosen].mean())


def served(router: RetrievalRouter, arms: Sequence[Arm], embeddings: FloatArray, scores: FloatArray) -> Served:
    """Return the queries as served by a router with a library; `scores` are over `arms`."""
    assert router.model is not None
    return Served(router.model, embeddings, scores[:, columns_of(router, arms)])


def best_settings(
    library: PilotLibrary, dev: Sequence[Labelled], experts: Mapping[str, str], may_fuse: bool
) -> RoutingSettings:
    """Return the settings of the best mean over dev collections, prepared and unprepared.

    Settings that serve unprepared collections as well as the plain arm on average take precedence; ties go to the
    first.
    """
    everyone = router_of(library, list(experts), may_fuse)
    known = [served(everyone, library.arms, part.embeddings, part.scores) for part in dev]
    foreign = [
        served(router, library.arms, *unknown_queries(library, part))
        for part in dev
        for there in [without_data_set(library, part.collection)]
        if len(there.keys)
        for router in [router_of(there, [name for name in experts if name != part.collection], may_fuse)]
    ]
    plain = float(np.mean([each.scores[:, each.model.plain].mean() for each in foreign])) if foreign else 0.0
    found: list[tuple[tuple[bool, float], RoutingSettings]] = []
    for temperature in TEMPERATURES:
        masses = [each.masses(temperature) for each in (*known, *foreign)]
        for prior_mass, margin in product(PRIOR_MASSES, MARGINS):
            settings = RoutingSettings(temperature=temperature, prior_mass=prior_mass, margin=margin)
            means = [each.mean(mass, settings) for each, mass in zip((*known, *foreign), masses, strict=True)]
            prepared = float(np.mean(means[: len(known)]))
            unprepared = float(np.mean(means[len(known) :])) if foreign else plain
            goodness = (prepared + unprepared) / 2 if foreign else prepared
            found.append(((unprepared >= plain - HARMLESS, round(goodness, 9)), settings))
    return max(found, key=itemgetter(0))[1]


def unknown_queries(library: PilotLibrary, dev: Labelled) -> tuple[FloatArray, FloatArray]:
    """Return embeddings and scores of a collection's dev queries and pilots: all are new to a library without it."""
    names = library.manifest.data_sets
    if dev.collection not in names:
        return dev.embeddings, dev.scores
    rows = (library.data_set == names.index(dev.collection)) & library.measured.all(axis=1)
    embeddings = np.concatenate([dev.embeddings, library.embeddings[rows]])
    return embeddings, np.concatenate([dev.scores, library.scores[rows]])


def router_of(library: PilotLibrary, experts: Sequence[str], may_fuse: bool) -> RetrievalRouter:
    return build_router(library, base_fingerprint=library.manifest.base_fingerprint, experts=experts, may_fuse=may_fuse)


def chosen_scores(router: RetrievalRouter, arms: Sequence[Arm], queries: Labelled) -> FloatArray:
    """Return nDCG@10 (n,) of each query, whose scores are over `arms`, under the arm that the router chooses."""
    chosen = columns_of(router, arms)[router.columns(queries.embeddings)]
    return queries.scores[np.arange(len(queries)), chosen]


def columns_of(router: RetrievalRouter, arms: Sequence[Arm]) -> IntArray:
    """Return the places (m,) of the router's arms in `arms`."""
    place = {arm: number for number, arm in enumerate(arms)}
    return np.array([place[arm] for arm in router.arms], dtype=np.int64)
