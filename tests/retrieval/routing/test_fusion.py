from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.retrieval.routing.fusion import Evidence, Ranking, fuse, fusions, unit_scores
from coe.retrieval.types import Arm


def ranking(*pairs: tuple[int, float]) -> Ranking:
    return np.array([key for key, _ in pairs], dtype=np.int64), np.array([s for _, s in pairs], dtype=np.float32)


def arm(*weights: float, evidence: tuple[float, ...] = ()) -> Arm:
    return Arm(members=("base", "bm25")[: len(weights)], weights=weights, evidence=evidence)


def saying(**said: tuple[float, float, float]) -> Evidence:
    """The words' features of documents `d0`, `d1`, ...; all 0 of others."""
    return lambda rows: np.array([said.get(f"d{row}", (0.0, 0.0, 0.0)) for row in rows], dtype=np.float32)


def holding(coverage: float) -> Evidence:
    return lambda rows: np.tile(np.float32([coverage, 0, 0]), (len(rows), 1))


def test_a_learned_arm_weighs_what_the_words_say() -> None:
    dense, words = ranking((7, 0.9), (3, 0.8), (5, 0.5)), ranking((3, 12.0), (9, 2.0))
    said = saying(d3=(0.5, 0.0, 1.0), d5=(1.0, 1.0, 0.0), d7=(0.5, 0.0, 0.0))
    keys, scores = fuse([dense, words], arm(0.3, 0.2, evidence=(0.3, 0.1, -0.1)), 10, said)
    assert keys.tolist() == [5, 7, 3, 9]
    expected = [0.15 + 0.4 + 0.1, 0.27 + 0.15 + 0.1, 0.24 + 0.2 * 0.5 + 0.15 - 0.1 + 0.1, 0.15 + 0.1]
    assert scores.tolist() == pytest.approx(expected)


def test_words_count_as_far_as_their_best_document_contains_the_query() -> None:
    dense, words = ranking((7, 0.9), (3, 0.8), (5, 0.5)), ranking((3, 12.0), (9, 2.0))
    keys, scores = fuse([dense, words], arm(0.6, 0.4), 10, holding(1.0))
    assert keys.tolist() == [3, 7, 5, 9]  # ties in the order in which the rankings name them
    assert scores.tolist() == pytest.approx([0.48 + 0.4, 0.54, 0.3, 0.3])
    keys, scores = fuse([dense, words], arm(0.6, 0.4), 10, holding(0.1))
    assert keys.tolist() == [7, 3, 5, 9]
    assert scores.tolist() == pytest.approx([0.54, 0.48 + 0.04, 0.3, 0.3])


def test_in_a_plain_fusion_words_find_and_their_share_of_the_query_counts() -> None:
    dense, words = ranking((7, 0.9), (3, 0.8)), ranking((9, 12.0), (3, 2.0))
    said = saying(d3=(0.5, 0.5, 1.0), d9=(1.0, 0.0, 0.0))
    keys, scores = fuse([dense, words], fusions("base", "bm25")[0], 10, said)
    assert keys.tolist() == [9, 3, 7]
    assert scores.tolist() == pytest.approx([0.74 * 0.8 + 0.156, 0.74 * 0.8 + 0.5 * 0.26, 0.74 * 0.9])


def test_one_ranking_is_cut_and_keeps_its_scores() -> None:
    keys, scores = fuse([ranking((4, 2.0), (1, 1.0))], arm(1.0), 1)
    assert keys.tolist() == [4]
    assert scores.tolist() == [2.0]


def test_an_empty_member_leaves_the_other_one() -> None:
    keys, _ = fuse([ranking((4, 2.0), (1, 1.0)), ranking()], arm(0.5, 0.5), 10, holding(1.0))
    assert keys.tolist() == [4, 1]
    keys, _ = fuse([ranking(), ranking((4, 2.0), (1, 1.0))], arm(0.5, 0.5), 10, holding(1.0))
    assert keys.tolist() == [4, 1]


def test_equal_scores_all_count_fully() -> None:
    assert unit_scores(np.array([3.0, 3.0], dtype=np.float32)).tolist() == [1.0, 1.0]


scored = st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1, width=32)), max_size=12, unique_by=lambda pair: pair[0])


@given(scored, scored, st.floats(0, 1), st.integers(1, 30))
def test_every_document_once_best_first_and_no_score_beyond_one(
    first: list[tuple[int, float]], second: list[tuple[int, float]], weight: float, count: int
) -> None:
    both = [ranking(*sorted(part, key=lambda pair: -pair[1])) for part in (first, second)]
    keys, scores = fuse(both, arm(weight, 1 - weight), count, holding(1.0))
    known = {key for key, _ in (*first, *second)}
    assert len(set(keys.tolist())) == len(keys) == min(count, len(known))
    assert set(keys.tolist()) <= known
    assert all(a >= b for a, b in pairwise(scores.tolist()))
    assert all(0 <= score <= 1 + 1e-6 for score in scores)
