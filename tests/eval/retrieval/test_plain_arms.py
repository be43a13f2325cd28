"""The plain arms: chosen on dev queries, and from what may be known where a collection is left out."""

from __future__ import annotations

import numpy as np

from eval.retrieval.arms import Situation, compare
from eval.retrieval.plain_arms import best_on, by_reciprocal_rank
from retrieval.training.collection import Queries
from retrieval.training.labels import Labelled
from retrieval.types import Arm

ARMS = tuple(
    Arm(members=members, weights=weights)
    for members, weights in (
        (("base",), (1.0,)),
        (("bm25",), (1.0,)),
        (("base", "bm25"), (0.3, 0.7)),
        (("base", "bm25"), (0.7, 0.3)),
        (("all",), (1.0,)),
        (("all", "bm25"), (0.3, 0.7)),
        (("all", "bm25"), (0.7, 0.3)),
    )
)


def labelled(collection: str, scores: list[float], count: int = 4) -> Labelled:
    ids = tuple(f"{collection}{i}" for i in range(count))
    queries = Queries(ids=ids, texts=ids, grades=({0: 1},) * count)
    return Labelled(collection, queries, np.eye(count, 6, dtype=np.float32), np.tile(np.float32(scores), (count, 1)))


DEV = (
    labelled("law", [0.5, 0.4, 0.6, 0.5, 0.7, 0.8, 0.7]),
    labelled("medicine", [0.5, 0.1, 0.3, 0.7, 0.7, 0.6, 0.75], count=1),
)
TEST = labelled("law", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
SITUATION = Situation(None, ("base", "bm25"), ARMS, DEV, "all")


def rows(*documents: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array(documents, dtype=np.int64), np.zeros(len(documents), dtype=np.float32)


def test_reciprocal_ranks_add_up_over_the_rankings_that_name_a_document() -> None:
    assert by_reciprocal_rank([rows(7, 8, 9), rows(9, 5)]) == [9, 7, 8, 5]
    assert by_reciprocal_rank([rows(), rows(4)]) == [4]


def test_one_weight_is_the_best_mean_over_collections_not_over_queries() -> None:
    assert best_on(DEV, [2, 3]) == 3
    assert best_on(DEV[:1], [2, 3]) == 2
    assert best_on((), [2, 3]) is None
    assert best_on(DEV, []) is None


def test_plain_arms_are_chosen_on_dev_and_scored_on_test() -> None:
    found = compare(TEST, SITUATION, np.full(4, 0.9, dtype=np.float32)).scores
    means = {arm: float(found[arm].mean()) for arm in ("rrf", "hybrid", "hybrid_collection", "multitask")}
    expected = {"rrf": 0.9, "hybrid": 0.4, "hybrid_collection": 0.3, "multitask": 0.5}
    assert means == {arm: np.float32(value) for arm, value in expected.items()}
    assert found["multitask_hybrid"].tolist() == TEST.scores[:, 6].tolist()


def test_a_collection_that_is_left_out_chooses_no_weight_and_has_no_multi_task_adapter() -> None:
    found = compare(TEST, SITUATION.without("medicine"), None)
    assert found.scores["hybrid"].tolist() == TEST.scores[:, 2].tolist()
    assert "multitask_hybrid" not in found.scores
    assert "trained on what is left out" in found.absent["multitask"]
    assert "rrf" in found.absent
