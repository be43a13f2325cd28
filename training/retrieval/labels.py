"""nDCG@10 of every arm on labelled queries: what the pilot library and the evaluation are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.retrieval.experts.adapter import AdapterExpert
from router.retrieval.library import Arm
from router.retrieval.records import BASE, DenseExpert, RetrievalExpert
from router.types import FloatArray
from training.retrieval.collection import Collection, Queries
from training.retrieval.recipe import MOST_HELD_OUT, held_out_queries
from training.retrieval.search import Searcher, silent

MOST_LOCATED = 300
"""Train queries of a collection, beside the pilots, whose embeddings say where it lies: they need no label, so adapters
may have been trained on them."""


@dataclass(frozen=True)
class Labelled:
    """n queries of one collection: base embeddings (n, d) and nDCG@10 (n, m) of arms."""

    collection: str
    queries: Queries
    embeddings: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def keys(self) -> NDArray[np.int64]:
        return np.array([query_key(self.collection, name) for name in self.queries.ids], dtype=np.int64)


def query_key(collection: str, query: str) -> int:
    """A whole number below 2^63 that tells a query of a collection apart."""
    digest = hashlib.sha256(f"{collection}\0{query}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def pilot_queries(collection: Collection, held_out: float, count: int = MOST_HELD_OUT) -> Queries:
    """Train queries that no expert saw, `count` at most, in an order that a hash decides.

    Args:
        held_out: share that the experts were trained without; 1 takes all, for experts that were not trained here.
    """
    queries = collection.split("train")
    kept = queries if held_out >= 1 else held_out_queries(queries, held_out)
    return first_by_hash(collection.name, kept, count)


def located_queries(collection: Collection, held_out: float) -> Queries:
    """Train queries beside the pilots, `MOST_LOCATED` at most, in an order that a hash decides."""
    queries, labelled = collection.split("train"), set(pilot_queries(collection, held_out).ids)
    others = queries.take([row for row, name in enumerate(queries.ids) if name not in labelled])
    return first_by_hash(collection.name, others, MOST_LOCATED)


def first_by_hash(collection: str, queries: Queries, count: int) -> Queries:
    """`count` queries at most, in the order of their keys."""
    order = sorted(range(len(queries)), key=lambda row: query_key(collection, queries.ids[row]))
    return queries.take(order[:count])


def locate(
    collections: Sequence[Collection],
    experts: Mapping[str, RetrievalExpert],
    held_out: float,
    cache: Path,
    progress: Callable[[str], None] = silent,
) -> dict[str, FloatArray]:
    """Base embeddings (k, d) of the queries that say where a collection lies, by its name."""
    base, found = experts[BASE], {}
    assert isinstance(base, DenseExpert)
    for collection in collections:
        queries = located_queries(collection, held_out)
        if len(queries):
            found[collection.name] = Searcher(collection, experts, cache, progress).encode(base, queries.texts, False)
    return found


def unseen_share(experts: Mapping[str, RetrievalExpert]) -> float:
    """Share of train queries that no adapter among the experts was trained on; all where there is no adapter."""
    return min((expert.held_out_share for expert in experts.values() if isinstance(expert, AdapterExpert)), default=1.0)


def label(searcher: Searcher, queries: Queries, arms: Sequence[Arm]) -> Labelled:
    """Runs every arm on the queries."""
    base = searcher.experts[BASE]
    assert isinstance(base, DenseExpert)
    embeddings = searcher.encode(base, queries.texts, False)
    return Labelled(searcher.collection.name, queries, embeddings, searcher.arm_scores(queries, arms))


def label_collections(
    collections: Sequence[Collection],
    experts: Mapping[str, RetrievalExpert],
    arms: Sequence[Arm],
    queries_of: Callable[[Collection], Queries],
    cache: Path,
    progress: Callable[[str], None] = silent,
) -> list[Labelled]:
    """The labelled queries of those collections that have some."""
    chosen = [(collection, queries_of(collection)) for collection in collections]
    return [label(Searcher(c, experts, cache, progress), queries, arms) for c, queries in chosen if len(queries)]
