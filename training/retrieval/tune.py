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
PRIOR_SIMILARITIES = (0.2, 0.3, 0.4, 0.5)
PRIOR_COUNTS = (1.0, 4.0, 16.0)
MARGINS = (0.0, 0.01)


def candidates() -> Iterator[RoutingSettings]:
    for temperature, similarity, count, margin in product(TEMPERATURES, PRIOR_SIMILARITIES, PRIOR_COUNTS, MARGINS):
        yield RoutingSettings(temperature=temperature, prior_similarity=similarity, prior_count=count, margin=margin)


def choose_settings(
    library: PilotLibrary, dev: Sequence[Labelled], expert_fingerprints: Mapping[str, str]
) -> RoutingSettings:
    """The settings of the best mean over dev collections, prepared and unprepared; the first of equals.

    The library's own without dev queries, and for the paper's methods, which have none.
    """
    best, best_score = library.manifest.settings, -1.0
    if best.method is not RoutingMethod.GAIN:
        return best
    for settings in candidates() if dev else ():
        tried = with_settings(library, settings)
        score = float(np.mean([prepared_and_not(tried, part, expert_fingerprints) for part in dev]))
        if score > best_score + 1e-9:
            best, best_score = settings, score
    return best


def prepared_and_not(library: PilotLibrary, dev: Labelled, experts: Mapping[str, str]) -> float:
    """Mean nDCG@10 with one expert a query and with fusion; each with the whole library, and with neither the
    collection's labels nor its expert."""
    foreign = without_data_set(library, dev.collection)
    others = [name for name in experts if name != dev.collection]
    found = [
        routed_scores(known, dev, serving, may_fuse=may_fuse).mean()
        for known, serving in ((library, list(experts)), (foreign, others))
        for may_fuse in (False, True)
        if len(known.keys)
    ]
    return float(np.mean(found))


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
