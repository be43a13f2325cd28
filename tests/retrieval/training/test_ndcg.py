"""Expected values were computed with pytrec_eval-terrier 0.5.11, measure ndcg_cut.10."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.retrieval.training.ndcg import CUT, ndcg, rank


def test_graded_and_tied_documents_as_trec_eval_has_them() -> None:
    ids = ["a", "x", "b", "c", "y", "z"]
    scores = np.array([0.9, 0.8, 0.8, 0.1, 0.05, -1], dtype=np.float32)
    ranked = rank(scores, ids, 5)
    assert [ids[row] for row in ranked] == ["a", "x", "b", "c", "y"]  # of equal scores the later id comes first
    assert ndcg([ranked], [{0: 3, 2: 1, 3: 2, 5: 1}]) == pytest.approx(0.8399273613836907, abs=1e-12)


def test_documents_beyond_the_cut_do_not_count() -> None:
    scores = np.array([1.0] * 9 + [0.5, 0.4], dtype=np.float32)
    ranked = rank(scores, [f"x{i}" for i in range(11)], 11)
    assert ndcg([ranked], [{9: 1, 10: 1}]) == pytest.approx(0.17723928678404774, abs=1e-12)


def test_nothing_relevant_and_nothing_found_are_0() -> None:
    assert ndcg([[0, 1], [], [5]], [{5: 0}, {5: 1}, {5: 2, 6: -1}]).tolist() == [0, 0, 1]
    assert ndcg([], []).shape == (0,)
    assert rank(np.zeros(0, dtype=np.float32), [], 10) == []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 30))
def test_ranks_are_those_of_a_full_sort(levels: list[int], count: int) -> None:
    scores = np.array(levels, dtype=np.float32)
    ids = [f"{i:02}" for i in range(len(levels))]
    full = sorted(range(len(levels)), key=lambda row: (levels[row], ids[row]), reverse=True)
    assert rank(scores, ids, count) == full[:count]


@given(
    st.lists(
        st.tuples(st.dictionaries(st.integers(0, 20), st.integers(0, 3), min_size=1), st.permutations(range(12))),
        min_size=1,
        max_size=4,
    )
)
def test_each_query_has_its_gains_discounted_by_rank_over_those_of_the_ideal_order(
    queries: list[tuple[dict[int, int], list[int]]],
) -> None:
    def discounted(gains: list[int]) -> float:
        return sum(gain / np.log2(place + 2) for place, gain in enumerate(gains[:CUT]))

    grades, orders = [grade for grade, _ in queries], [order for _, order in queries]
    ideal = [discounted(sorted(grade.values(), reverse=True)) for grade in grades]
    won = [discounted([grade.get(row, 0) for row in order]) for grade, order in queries]
    wanted = [value / best if best else 0.0 for value, best in zip(won, ideal, strict=True)]
    np.testing.assert_allclose(ndcg(orders, grades), wanted, rtol=0, atol=1e-12)


@given(st.dictionaries(st.integers(0, 20), st.integers(0, 3), min_size=1), st.permutations(range(12)))
def test_it_lies_between_0_and_1_and_the_ideal_order_has_1(grades: dict[int, int], order: list[int]) -> None:
    ideal = sorted(grades, key=lambda row: -grades[row])
    found, best = ndcg([order, ideal], [grades, grades])
    assert 0 <= found <= 1 + 1e-12
    assert best == pytest.approx(1.0 if any(grades.values()) else 0.0)
