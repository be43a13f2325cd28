"""Labels: nDCG@10 of every arm on queries, from which the pilot library and the evaluation are built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coe.retrieval.build_experts import first_lexical
from coe.retrieval.experts.trained import TrainedExpert
from coe.retrieval.training.collection import Collection, Queries
from coe.retrieval.training.held_out import MOST_HELD_OUT, held_out_queries
from coe.retrieval.training.learned_fusion import cross_scores, learn_weights, learned_arm
from coe.retrieval.training.searcher import Searcher
from coe.retrieval.types import BASE, Arm, DenseExpert, RetrievalExpert
from coe.router.types import FloatArray, IntArray

MOST_LOCATED = 300
"""Train queries per collection, besides the pilots, that locate it. They need no label and may be trained on."""


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
    def keys(self) -> IntArray:
        return np.array([query_key(self.collection, name) for name in self.queries.ids], dtype=np.int64)


def query_key(collection: str, query: str) -> int:
    """Return an integer below 2^63 that identifies a query of a collection."""
    digest = hashlib.sha256(f"{collection}\0{query}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def unseen_queries(collection: Collection, *, is_trained: bool) -> Queries:
    """Return the train queries that no expert saw: all, or the held-out ones if an expert `is_trained`."""
    queries = collection.split("train")
    return held_out_queries(queries) if is_trained else queries


def pilot_queries(collection: Collection, *, is_trained: bool) -> Queries:
    """Return at most `MOST_HELD_OUT` of the `unseen_queries`, ordered by a hash."""
    kept = unseen_queries(collection, is_trained=is_trained)
    return first_by_hash(collection.name, kept, MOST_HELD_OUT)


def located_queries(collection: Collection, *, is_trained: bool) -> Queries:
    """Return at most `MOST_LOCATED` train queries besides the pilots, ordered by a hash."""
    queries, labelled = collection.split("train"), set(pilot_queries(collection, is_trained=is_trained).ids)
    others = queries.take([row for row, name in enumerate(queries.ids) if name not in labelled])
    return first_by_hash(collection.name, others, MOST_LOCATED)


def first_by_hash(collection: str, queries: Queries, count: int) -> Queries:
    """Return at most `count` queries, in the order of their keys."""
    order = sorted(range(len(queries)), key=lambda row: query_key(collection, queries.ids[row]))
    return queries.take(order[:count])


def locate(searchers: Sequence[Searcher]) -> dict[str, FloatArray]:
    """Return by collection the base embeddings (k, d) of the queries that locate it."""
    found = {}
    for searcher in searchers:
        base = searcher.experts[BASE]
        queries = located_queries(searcher.collection, is_trained=any_trained(searcher.experts))
        assert isinstance(base, DenseExpert)
        if len(queries):
            found[searcher.collection.name] = searcher.encode(base, queries.texts, False)
    return found


def any_trained(experts: Mapping[str, RetrievalExpert]) -> bool:
    """Return whether an expert was trained on train queries."""
    return any(isinstance(expert, TrainedExpert) for expert in experts.values())


def label(searcher: Searcher, queries: Queries, arms: Sequence[Arm]) -> Labelled:
    """Measure every arm on the queries."""
    base = searcher.experts[BASE]
    assert isinstance(base, DenseExpert)
    embeddings = searcher.encode(base, queries.texts, False)
    return Labelled(searcher.collection.name, queries, embeddings, searcher.arm_scores(queries, arms))


def label_collections(
    searchers: Sequence[Searcher], arms: Sequence[Arm], queries_of: Callable[[Collection], Queries]
) -> list[Labelled]:
    """Return the labelled queries of the collections that have some."""
    chosen = [(searcher, queries_of(searcher.collection)) for searcher in searchers]
    return [label(searcher, queries, arms) for searcher, queries in chosen if len(queries)]


def label_pilots(
    searchers: Sequence[Searcher], arms: Sequence[Arm], known: Sequence[Arm] = ()
) -> tuple[list[Labelled], tuple[Arm, ...]]:
    """Return the pilots of the collections that have some, and the arms of their scores.

    The arms are the given ones, the learned ones in `known`, and the fusions that each collection teaches now. The
    queries that taught an arm are scored by weights that they did not teach.

    Args:
        known: arms of a library.
    """
    arms = (*arms, *(arm for arm in known if arm.learned_on is not None))
    is_trained = any(any_trained(searcher.experts) for searcher in searchers)
    labelled = label_collections(searchers, arms, lambda each: pilot_queries(each, is_trained=is_trained))
    searcher_of = {searcher.collection.name: searcher for searcher in searchers}
    taught = [learn_fusion(searcher_of[part.collection], part, arms) for part in labelled]
    learned = [found for found in taught if found is not None]
    fusions = [found.arm for found in learned]
    parts = []
    for part, mine in zip(labelled, taught, strict=True):
        scores = searcher_of[part.collection].arm_scores(part.queries, fusions)
        if mine is not None:
            scores[:, fusions.index(mine.arm)] = mine.scores
        parts.append(replace(part, scores=np.concatenate([part.scores, scores], axis=1)))
    return parts, (*arms, *fusions)


@dataclass(frozen=True)
class LearnedFusion:
    """An arm, and nDCG@10 (n,) of the queries that taught it, each by weights that it did not teach."""

    arm: Arm
    scores: FloatArray


def learn_fusion(searcher: Searcher, pilots: Labelled, arms: Sequence[Arm]) -> LearnedFusion | None:
    """Learn the fusion of BM25 and the dense expert of the best arm.

    Returns:
        None if either is missing, too few queries teach, or the fusion is among the arms.
    """
    lexical = first_lexical(searcher.experts)
    if lexical is None:
        return None
    dense = [
        i
        for i, arm in enumerate(arms)
        if arm.learned_on is None and isinstance(searcher.experts[arm.members[0]], DenseExpert)
    ]
    members = arms[max(dense, key=lambda i: float(pilots.scores[:, i].mean()))].members[0], lexical
    if any((arm.members, arm.learned_on) == (members, pilots.collection) for arm in arms):
        return None
    queries = searcher.candidates(pilots.queries, members)
    weights, scores = learn_weights(queries), cross_scores(queries)
    if weights is None or scores is None:
        return None
    return LearnedFusion(learned_arm(members, pilots.collection, weights), scores)
