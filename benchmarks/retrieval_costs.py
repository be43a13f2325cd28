"""The time that routing adds to a search, and the effect of one more expert on the collections that are not its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from coe.retrieval.routing.fusion import fuse
from coe.retrieval.routing.pilot_library import PilotLibrary
from coe.retrieval.routing.pilot_router import build_router
from coe.retrieval.training.labels import Labelled
from coe.retrieval.training.routing_tuning import chosen_scores, router_of
from coe.retrieval.training.searcher import Searcher
from coe.retrieval.types import BASE, DenseExpert, RetrievalExpert
from coe.router.types import FloatArray

TIMED_QUERIES = 30


def routed_scores(
    library: PilotLibrary, queries: Labelled, experts: Sequence[str], *, may_fuse: bool = True
) -> FloatArray:
    """(n,) nDCG@10 of each query under the arm that the router chooses among those of `experts`."""
    return chosen_scores(router_of(library, experts, may_fuse), library.arms, queries)


def cost_of_adding(
    tests: Sequence[Labelled], library: PilotLibrary | None, experts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """For every expert the change of coe's nDCG@10 on each of the other collections, when it is added last."""
    if library is None:
        return {}
    everyone = {test.collection: routed_scores(library, test, experts).mean() for test in tests}
    found = {}
    for expert in experts:
        fewer = [name for name in experts if name != expert]
        others = [test for test in tests if test.collection != expert]
        found[expert] = {
            test.collection: float(everyone[test.collection] - routed_scores(library, test, fewer).mean())
            for test in others
        }
    return {expert: changes for expert, changes in found.items() if expert != BASE and changes}


def latency_ms(
    experts: Mapping[str, RetrievalExpert], library: PilotLibrary | None, searchers: Sequence[Searcher]
) -> dict[str, float]:
    """Medians of one query at a time, on the first collection's test queries with exact search of the largest
    collection."""
    base = experts[BASE]
    assert isinstance(base, DenseExpert)
    sample = searchers[0].collection.split("test").texts[:TIMED_QUERIES]
    vectors = base.encode_queries(sample)
    router = build_router(library, base_fingerprint=base.fingerprint, experts=experts)
    dense = [expert for name, expert in experts.items() if name != BASE and isinstance(expert, DenseExpert)]
    documents = np.zeros((max(len(each.collection.documents) for each in searchers), base.dim), dtype=np.float32)
    top = min(10, len(documents))
    calls: dict[str, Callable[[int], object]] = {
        "base encoding": lambda i: base.encode_queries([sample[i]]),
        "choosing": lambda i: router.choose(vectors[i : i + 1]),
        "exact search": lambda i: np.argpartition(documents @ vectors[i], -top),
    }
    if dense:
        calls["encoding by a trained expert"] = lambda i: dense[0].encode_queries([sample[i]])
    arm = next((arm for arm in library.arms if arm.evidence), None) if library else None
    if arm is not None:
        found = [searchers[0].rankings(name, sample) for name in arm.members]
        words = searchers[0].words(arm.members[-1])
        calls["a learned fusion"] = lambda i: fuse(
            [rankings[i] for rankings in found], arm, 10, partial(words.evidence, sample[i])
        )
    return {name: median_ms(call, range(len(sample))) for name, call in calls.items()}


def median_ms(call: Callable[[int], object], rows: Sequence[int]) -> float:
    call(0)
    taken = []
    for i in rows:
        start = time.perf_counter()
        call(i)
        taken.append(1e3 * (time.perf_counter() - start))
    return float(np.median(taken))
