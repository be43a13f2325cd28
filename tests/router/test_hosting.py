"""Which experts to host: against brute force, and the greedy order beyond twelve experts."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from router.errors import InfeasibleBudgetError
from router.hosting import greedy_subsets, hosted_experts

SIZES = np.array([8.0, 9.0, 27.0, 70.0, 72.0])


def brute_force(quality: np.ndarray, sizes: np.ndarray, limit: float) -> float:
    fitting = [
        subset
        for r in range(1, len(sizes) + 1)
        for subset in combinations(range(len(sizes)), r)
        if sizes[list(subset)].sum() <= limit
    ]
    return max(float(quality[:, subset].max(axis=1).mean()) for subset in fitting)


def test_the_best_subset_is_found_for_every_limit() -> None:
    quality = np.random.default_rng(0).random((60, 5))
    limits = [8.0, 17.0, 44.0, 79.0, 120.0, 186.0]
    found = hosted_experts(quality, SIZES, limits)
    assert found.shape == (6, 5)
    for mask, limit in zip(found, limits, strict=True):
        assert SIZES[mask].sum() <= limit
        assert quality[:, mask].max(axis=1).mean() == pytest.approx(brute_force(quality, SIZES, limit))


def test_of_equal_subsets_the_smaller_is_hosted() -> None:
    quality = np.full((4, 5), 0.5)
    np.testing.assert_array_equal(hosted_experts(quality, SIZES, [200.0]), [[True, False, False, False, False]])


def test_a_limit_under_the_smallest_is_refused() -> None:
    with pytest.raises(InfeasibleBudgetError, match="smallest value that would do is 8"):
        hosted_experts(np.ones((2, 5)), SIZES, [20.0, 7.0])


def test_many_experts_are_added_greedily_and_never_worse_with_more_room() -> None:
    rng = np.random.default_rng(1)
    quality, sizes = rng.random((50, 17)), rng.integers(1, 30, 17).astype(float)
    limits = [60.0, 10.0, 30.0, 300.0]
    found = hosted_experts(quality, sizes, limits)
    values = {
        limit: quality[:, mask].max(axis=1).mean() if sizes[mask].sum() <= limit * 1.000001 else -1
        for limit, mask in zip(limits, found, strict=True)
    }
    assert 0 < values[10.0] <= values[30.0] <= values[60.0] <= values[300.0]
    assert values[300.0] == pytest.approx(quality.max(axis=1).mean())  # all fit


def test_greedy_is_near_the_best_where_that_can_be_told() -> None:
    quality = np.random.default_rng(2).random((60, 5))
    for limit in (17.0, 44.0, 100.0):
        mask = greedy_subsets(quality, SIZES, [limit])[0]
        assert SIZES[mask].sum() <= limit
        assert quality[:, mask].max(axis=1).mean() >= 0.95 * brute_force(quality, SIZES, limit)
