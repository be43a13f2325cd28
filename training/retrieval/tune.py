"""Chooses the settings of routing on dev queries: as prepared, and with each domain in turn as if never seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from router.retrieval.choice import RetrievalRouter, build_router
from router.retrieval.gains import GainModel
from router.retrieval.library import PilotLibrary, RoutingMethod, RoutingSettings
from router.retrieval.records import Arm, RetrievalDecision
from router.types import FloatArray
from training.retrieval.labels import Labelled
from training.retrieval.pilots import with_settings, without_data_set

TEMPERATURES = (0.02, 0.03, 0.04, 0.05, 0.08)
PRIOR_MASSES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MARGINS = (0.0, 0.005, 0.01)


def candidates() -> Iterator[RoutingSettings]:
    for temperature, mass, margin in product(TEMPERATURES, PRIOR_MASSES, MARGINS):
        yield RoutingSettings(temperature=temperature, prior_mass=mass, margin=margin)


def tuned(library: PilotLibrary, dev: Sequence[Labelled], expert_fingerprints: Mapping[str, str]) -> PilotLibrary:
    """The library with settings chosen on dev queries, for fusion and for one expert a query.

    As it is without dev queries, and for the paper's methods, which have no settings.
    """
    if library.manifest.settings.method is not RoutingMethod.GAIN or not dev:
        return library
    fused, single = (best_settings(library, dev, expert_fingerprints, may_fuse) for may_fuse in (True, False))
    return with_settings(library, fused, single)


def best_settings(
    library: PilotLibrary, dev: Sequence[Labelled], experts: Mapping[str, str], may_fuse: bool
) -> RoutingSettings:
    """Those of the best mean over dev collections, prepared and unprepared, among those that serve unprepared
    collections no worse than base does on average; the first of equals, and the best of all if none is so safe."""

    everyone = router_of(library, list(experts), may_fuse)
    known = [(part, everyone) for part in dev]
    foreign = [
        (part, router_of(there, [name for name in experts if name != part.collection], may_fuse))
        for part in dev
        for there in [without_data_set(library, part.collection)]
        if len(there.keys)
    ]

    def mean(situations: Sequence[tuple[Labelled, RetrievalRouter]], settings: RoutingSettings) -> float:
        means = [chosen_scores(under(router, settings), library.arms, part).mean() for part, router in situations]
        return float(np.mean(means))

    def goodness(settings: RoutingSettings) -> tuple[bool, float]:
        prepared = mean(known, settings)
        if not foreign:
            return True, round(prepared, 9)
        unprepared, base = mean(foreign, settings), float(np.mean([part.scores[:, 0].mean() for part, _ in foreign]))
        return unprepared >= base - 1e-9, round((prepared + unprepared) / 2, 9)

    return max(candidates(), key=goodness)


def router_of(library: PilotLibrary, experts: Sequence[str], may_fuse: bool) -> RetrievalRouter:
    return build_router(library, base_fingerprint=library.manifest.base_fingerprint, experts=experts, may_fuse=may_fuse)


def under(router: RetrievalRouter, settings: RoutingSettings) -> RetrievalRouter:
    """The router with other settings, without fitting it again."""
    return replace(router, model=router.model.under(settings)) if isinstance(router.model, GainModel) else router


def routed_scores(
    library: PilotLibrary, queries: Labelled, experts: Sequence[str], *, may_fuse: bool = True
) -> FloatArray:
    """(n,) nDCG@10 of each query under the arm that the router chooses among those of `experts`."""
    return chosen_scores(router_of(library, experts, may_fuse), library.arms, queries)


def chosen_scores(router: RetrievalRouter, arms: Sequence[Arm], queries: Labelled) -> FloatArray:
    """(n,) nDCG@10 of each query, whose scores are over `arms`, under the arm that the router chooses."""
    place = {arm: number for number, arm in enumerate(arms)}
    column = np.array([place[arm] for arm in router.arms], dtype=np.int64)
    return queries.scores[np.arange(len(queries)), column[router.columns(queries.embeddings)]]


def scores_of(arms: Sequence[Arm], queries: Labelled, decisions: Sequence[RetrievalDecision]) -> FloatArray:
    column = {arm: number for number, arm in enumerate(arms)}
    chosen = [column[decision.arm] for decision in decisions]
    return queries.scores[np.arange(len(queries)), chosen]
