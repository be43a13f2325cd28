"""Chooses the settings of routing on dev queries: as prepared, and with each domain in turn as if never seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from router.retrieval.choice import RetrievalRouter, build_router
from router.retrieval.library import Arm, PilotLibrary, RoutingMethod, RoutingSettings
from router.retrieval.records import RetrievalDecision
from router.types import FloatArray
from training.retrieval.labels import Labelled
from training.retrieval.pilots import with_settings, without_data_set

TEMPERATURES = (0.03, 0.05, 0.08)
PRIOR_MASSES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MARGINS = (0.0, 0.005, 0.01, 0.02)

SHORT_OF_BASE = 5e-4
"""nDCG@10 below base on unprepared queries that counts as none: less than what three digits show."""


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

    def goodness(settings: RoutingSettings) -> tuple[bool, float]:
        tried = with_settings(library, settings)
        found = [prepared_and_not(tried, part, experts, may_fuse) for part in dev]
        short = [part.scores[:, 0].mean() - scores[1] for part, scores in zip(dev, found, strict=True) if scores[1:]]
        return not short or float(np.mean(short)) <= SHORT_OF_BASE, round(
            float(np.mean([np.mean(s) for s in found])), 9
        )

    return max(candidates(), key=goodness)


def prepared_and_not(
    library: PilotLibrary, dev: Labelled, experts: Mapping[str, str], may_fuse: bool
) -> tuple[float, ...]:
    """Mean nDCG@10 with the whole library, and with neither the collection's labels nor its expert, if that leaves
    a labelled query."""
    foreign = without_data_set(library, dev.collection)
    others = [name for name in experts if name != dev.collection]
    return tuple(
        float(routed_scores(known, dev, serving, may_fuse=may_fuse).mean())
        for known, serving in ((library, list(experts)), (foreign, others))
        if len(known.keys)
    )


def routed_scores(
    library: PilotLibrary, queries: Labelled, experts: Sequence[str], *, may_fuse: bool = True
) -> FloatArray:
    """(n,) nDCG@10 of each query under the arm that the router chooses among those of `experts`."""
    router = build_router(
        library, base_fingerprint=library.manifest.base_fingerprint, experts=experts, may_fuse=may_fuse
    )
    return chosen_scores(router, library.arms, queries)


def chosen_scores(router: RetrievalRouter, arms: Sequence[Arm], queries: Labelled) -> FloatArray:
    """(n,) nDCG@10 of each query, whose scores are over `arms`, under the arm that the router chooses."""
    place = {arm: number for number, arm in enumerate(arms)}
    column = np.array([place[arm] for arm in router.arms], dtype=np.int64)
    return queries.scores[np.arange(len(queries)), column[router.columns(queries.embeddings)]]


def scores_of(arms: Sequence[Arm], queries: Labelled, decisions: Sequence[RetrievalDecision]) -> FloatArray:
    column = {(arm.members, arm.weights): number for number, arm in enumerate(arms)}
    chosen = [column[(decision.members, decision.weights)] for decision in decisions]
    return queries.scores[np.arange(len(queries)), chosen]
