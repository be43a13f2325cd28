"""The plain arms: chosen on dev queries, and from what may be known where a collection is left out."""

from __future__ import annotations

import numpy as np

from benchmarks.retrieval_eval.arms import (
    WEIGHTS,
    PlainFusions,
    Situation,
    best_weight,
    by_convex_sum,
    by_reciprocal_rank,
    compare,
)
from coe.retrieval.routing.fusion import Ranking
from coe.retrieval.training.collection import Queries
from coe.retrieval.training.labels import Labelled
from coe.retrieval.types import Arm

ARMS = tuple(Arm(members=(name,), weights=(1.0,)) for name in ("base", "bm25"))


def rows(*pairs: tuple[int, float]) -> Ranking:
    return np.array([row for row, _ in pairs], dtype=np.int64), np.array([s for _, s in pairs], dtype=np.float32)


def best_at(place: int, count: int, height: float = 0.5) -> np.ndarray:
    """(count, g) scores that are highest at one weight."""
    return np.tile(np.where(np.arange(len(WEIGHTS)) == place, height, 0.1).astype(np.float32), (count, 1))


def fusions(place: int, count: int = 3, height: float = 0.5) -> PlainFusions:
    return PlainFusions(np.full(count, 0.3, dtype=np.float32), best_at(place, count, height))


IDS = ("a", "b", "c")
TEST = Labelled(
    "law", Queries(IDS, IDS, ({0: 1},) * 3), np.eye(3, 6, dtype=np.float32), np.full((3, 2), 0.2, np.float32)
)
SITUATION = Situation(None, ("base", "bm25"), ARMS, {"law": fusions(1), "medicine": fusions(4, 1, 0.9)})
RISING = np.tile(np.linspace(0.1, 0.7, len(WEIGHTS), dtype=np.float32), (3, 1))
MEASURED = PlainFusions(np.full(3, 0.25, dtype=np.float32), RISING)


def test_rankings_are_fused_by_reciprocal_ranks_and_by_scaled_scores() -> None:
    dense, worded = rows((7, 0.9), (8, 0.5), (9, 0.4)), rows((9, 12.0), (5, 2.0))
    assert by_reciprocal_rank([dense, worded]) == [9, 7, 8, 5]
    assert by_reciprocal_rank([rows(), worded]) == [9, 5]
    assert by_convex_sum(dense, worded, 0.7) == [7, 9, 8, 5]
    assert by_convex_sum(dense, worded, 0.3) == [9, 7, 8, 5]


def test_one_weight_is_the_best_mean_over_collections_not_over_queries() -> None:
    assert best_weight([best_at(1, 9), best_at(4, 1, 0.9)]) == 4
    assert best_weight([]) is None


def test_plain_arms_are_chosen_on_dev_and_scored_on_test() -> None:
    found = compare(TEST, SITUATION, MEASURED).scores
    assert found["rrf"].tolist() == MEASURED.rrf.tolist()
    assert found["hybrid"].tolist() == RISING[:, 4].tolist()


def test_a_collection_that_is_left_out_chooses_no_weight() -> None:
    found = compare(TEST, SITUATION.without("medicine"), MEASURED)
    assert found.scores["hybrid"].tolist() == RISING[:, 1].tolist()
    assert {"rrf", "hybrid"}.isdisjoint(compare(TEST, SITUATION, None).scores)
