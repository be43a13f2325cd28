"""Reference arms on tables small enough to know the answer."""

from __future__ import annotations

import numpy as np
import pytest

from coe.eval.routing import baselines

SCORES = np.array([[1, 0, 0.5], [1, 0, 0.5], [0, 1, 0.5], [0, 0.8, 0.9]], dtype=np.float32)
UNKNOWN = np.full(3, np.nan)


def test_best_single_is_the_highest_mean_of_those_allowed() -> None:
    assert baselines.best_single(SCORES) == 2
    assert baselines.best_single(SCORES, np.array([True, True, False])) == 0


def test_category_oracle_takes_the_best_expert_of_each_true_category() -> None:
    np.testing.assert_array_equal(baselines.category_oracle(SCORES, ["a", "a", "b", "b"]), [0, 0, 1, 1])


def test_query_oracle_takes_the_best_expert_and_the_smallest_of_equals() -> None:
    np.testing.assert_array_equal(baselines.query_oracle(SCORES, UNKNOWN), [0, 0, 1, 2])
    equal = np.array([[1, 1, 0]], dtype=np.float32)
    np.testing.assert_array_equal(baselines.query_oracle(equal, np.array([7.0, 2.0, 1.0])), [1])
    np.testing.assert_array_equal(baselines.query_oracle(equal, np.array([np.nan, 9.0, 1.0])), [1])


def test_knn_takes_the_expert_that_the_neighbours_favour() -> None:
    angles = np.array([0.0, 0.1, 1.4, 1.5])
    fit = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    asked = np.array([[1, 0], [0, 1]], dtype=np.float32)
    np.testing.assert_array_equal(baselines.knn(SCORES, fit, asked, k=2), [0, 1])
    np.testing.assert_array_equal(baselines.knn(SCORES, fit, asked[:1], k=1), [0])


def test_knn_with_every_fit_query_as_neighbour_still_weighs_by_similarity() -> None:
    fit = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(baselines.knn(SCORES, fit, fit, k=40), [0, 0, 1, 2])


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (10.0, [1, 0, 0]),  # only the smallest fits
        (40.0, [0.5, 0, 0.5]),  # halfway to the large one; the middle one lies under the hull
        (70.0, [0, 0, 1]),
        (99.0, [0, 0, 1]),
    ],
)
def test_best_mixture_is_the_hull_at_the_budget(budget: float, expected: list[float]) -> None:
    found = baselines.best_mixture(np.array([0.5, 0.55, 0.8]), np.array([10.0, 40.0, 70.0]), budget)
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_no_mixture_fits_under_the_smallest() -> None:
    assert baselines.best_mixture(np.array([0.5, 0.6]), np.array([10.0, 20.0]), 9.0) is None
    assert baselines.best_mixture(np.array([0.5, 0.6]), UNKNOWN[:2], 9.0) is None
