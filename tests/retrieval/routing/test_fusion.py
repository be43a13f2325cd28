from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.routing.fusion import Ranking, fuse, unit_scores
from retrieval.types import Arm


def ranking(*pairs: tuple[int, float]) -> Ranking:
    return np.array([key for key, _ in pairs], dtype=np.int64), np.array([s for _, s in pairs], dtype=np.float32)


def arm(*weights: float, evidence: tuple[float, ...] = ()) -> Arm:
    return Arm(members=("base", "bm25")[: len(weights)], weights=weights, evidence=evidence)


def test_a_learned_arm_weighs_what_the_words_say_and_stays_between_0_and_1() -> None:
    dense, words = ranking((7, 0.9), (3, 0.8), (5, 0.5)), ranking((3, 12.0), (9, 2.0))
    said = {3: (0.0, 0.0, 1.0), 5: (1.0, 1.0, 0.0), 7: (0.5, 0.0, 0.0), 9: (0.0, 0.0, 0.0)}
    learned = arm(0.3, 0.2, evidence=(0.3, 0.1, -0.1))
    keys, scores = fuse([dense, words], learned, 10, lambda rows: np.array([said[int(row)] for row in rows]))
    assert keys.tolist() == [7, 5, 3, 9]
    assert scores.tolist() == pytest.approx([0.3 + 0.15 + 0.1, 0.4 + 0.1, 0.225 + 0.2 - 0.1 + 0.1, 0.1])


def test_sums_are_of_shares_and_ties_keep_the_order_of_the_rankings() -> None:
    dense = ranking((7, 0.9), (3, 0.8), (5, 0.5))  # shares 1, 0.75, 0
    words = ranking((3, 12.0), (9, 2.0))  # shares 1, 0
    keys, scores = fuse([dense, words], arm(0.6, 0.4), 10)
    assert keys.tolist() == [3, 7, 5, 9]
    assert scores.tolist() == pytest.approx([0.85, 0.6, 0.0, 0.0])


def test_one_ranking_is_cut_and_keeps_its_scores() -> None:
    keys, scores = fuse([ranking((4, 2.0), (1, 1.0))], arm(1.0), 1)
    assert keys.tolist() == [4]
    assert scores.tolist() == [2.0]


def test_an_empty_member_leaves_the_other_one() -> None:
    keys, _ = fuse([ranking((4, 2.0), (1, 1.0)), ranking()], arm(0.5, 0.5), 10)
    assert keys.tolist() == [4, 1]


def test_equal_scores_all_count_fully() -> None:
    assert unit_scores(np.array([3.0, 3.0], dtype=np.float32)).tolist() == [1.0, 1.0]


scored = st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1, width=32)), max_size=12, unique_by=lambda pair: pair[0])


@given(scored, scored, st.floats(0, 1), st.integers(1, 30))
def test_every_document_once_best_first_and_no_score_beyond_one(
    first: list[tuple[int, float]], second: list[tuple[int, float]], weight: float, count: int
) -> None:
    both = [ranking(*sorted(part, key=lambda pair: -pair[1])) for part in (first, second)]
    keys, scores = fuse(both, arm(weight, 1 - weight), count)
    known = {key for key, _ in (*first, *second)}
    assert len(set(keys.tolist())) == len(keys) == min(count, len(known))
    assert set(keys.tolist()) <= known
    assert all(a >= b for a, b in pairwise(scores.tolist()))
    assert all(0 <= score <= 1 + 1e-6 for score in scores)
