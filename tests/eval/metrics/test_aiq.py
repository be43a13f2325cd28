"""The hull and its area: by hand, and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics.quality_over_cost import aiq, hull_quality, non_decreasing_hull


def test_corners_by_hand() -> None:
    """(2, 0.3) lies under the chord, (4, 0.7) is dearer and worse than (3, 0.8)."""
    cost, quality = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 0.3, 0.8, 0.7])
    np.testing.assert_allclose(non_decreasing_hull(cost, quality), [[0, 0], [1, 0.5], [3, 0.8]])


def test_the_area_by_hand() -> None:
    """A triangle of 0.25, a trapezium of 1.3, then 0.8 to the largest cost 4."""
    cost, quality = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 0.3, 0.8, 0.7])
    assert aiq(cost, quality, 4.0) == pytest.approx((0.25 + 1.3 + 0.8) / 4)
    assert aiq(cost, quality, 2.0) == pytest.approx((0.25 + 0.575) / 2)
    assert aiq(np.array([2.0]), np.array([0.6]), 2.0) == pytest.approx(0.3)


def test_a_free_point_replaces_the_null_router() -> None:
    hull = non_decreasing_hull(np.array([0.0, 1.0]), np.array([0.4, 0.5]))
    np.testing.assert_allclose(hull, [[0, 0.4], [1, 0.5]])
    np.testing.assert_allclose(non_decreasing_hull(np.array([1.0]), np.array([0.0])), [[0, 0]])


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="at least one"):
        non_decreasing_hull(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="finite"):
        non_decreasing_hull(np.array([np.nan]), np.array([0.5]))
    with pytest.raises(ValueError, match="largest cost 0"):
        aiq(np.array([1.0]), np.array([0.5]), 0.0)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=7), st.integers(0, 16))
def test_the_hull_is_the_best_coin_within_the_cost(points: list[tuple[int, int]], twice: int) -> None:
    """Brute force: the best mixture of any two points, the null router among them, at no more than the cost."""
    limit = twice / 2
    known = np.array([(0, 0), *points], dtype=np.float64)
    best = 0.0
    for a in known:
        for b in known:
            if a[0] <= limit < b[0]:
                share = (limit - a[0]) / (b[0] - a[0])
                best = max(best, float((1 - share) * a[1] + share * b[1]))
            if a[0] <= limit:
                best = max(best, float(a[1]))
    hull = non_decreasing_hull(known[1:, 0], known[1:, 1])
    assert float(hull_quality(hull, limit)) == pytest.approx(best)
    assert (np.diff(hull[:, 0]) > 0).all()
    assert (np.diff(hull[:, 1]) > 0).all()
