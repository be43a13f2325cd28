"""Time that routing adds to one query: medians in milliseconds, measured here and now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eval.retrieval.retrieval_records import Latency
from retrieval.routing.fusion import fuse
from retrieval.routing.pilot_library import PilotLibrary
from retrieval.routing.pilot_router import build_router
from retrieval.training.searcher import Searcher
from retrieval.types import BASE, DenseExpert, RetrievalExpert

QUERIES = 30


def measure_latency(
    experts: Mapping[str, RetrievalExpert],
    library: PilotLibrary | None,
    searchers: Sequence[Searcher],
) -> Latency:
    """Times the first collection's test queries, with exact search of the largest collection."""
    base = experts[BASE]
    assert isinstance(base, DenseExpert)
    sample = searchers[0].collection.split("test").texts[:QUERIES]
    vectors = base.encode_queries(sample)
    router = build_router(library, base_fingerprint=base.fingerprint, experts=experts)
    dense = [expert for name, expert in experts.items() if name != BASE and isinstance(expert, DenseExpert)]
    documents = np.zeros((max(len(each.collection.documents) for each in searchers), base.dim), dtype=np.float32)
    rows = range(len(sample))
    top = min(10, len(documents))
    return Latency(
        base_encode_ms=median_ms(lambda i: base.encode_queries([sample[i]]), rows),
        choose_ms=median_ms(lambda i: router.choose(vectors[i : i + 1]), rows),
        adapter_encode_ms=median_ms(lambda i: dense[0].encode_queries([sample[i]]), rows) if dense else None,
        search_ms=median_ms(lambda i: np.argpartition(documents @ vectors[i], -top), rows),
        fuse_ms=fuse_ms(library, searchers[0], sample),
    )


def fuse_ms(library: PilotLibrary | None, searcher: Searcher, sample: Sequence[str]) -> float | None:
    """Milliseconds of a fusion with learned weights; None where none were learned."""
    arm = next((arm for arm in library.arms if arm.evidence), None) if library else None
    if arm is None:
        return None
    found = [searcher.rankings(name, sample) for name in arm.members]
    return median_ms(
        lambda i: fuse([rankings[i] for rankings in found], arm, 10, searcher.evidence(arm, sample[i])),
        range(len(sample)),
    )


def median_ms(call: Callable[[int], object], rows: Sequence[int]) -> float:
    call(0)
    taken = []
    for i in rows:
        start = time.perf_counter()
        call(i)
        taken.append(1e3 * (time.perf_counter() - start))
    return float(np.median(taken))
