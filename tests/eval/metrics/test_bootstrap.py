"""Bootstrap intervals: reference values, pairing, seed."""

from __future__ import annotations

import numpy as np
import pytest

from coe.eval.metrics.intervals import bootstrap_means, percentile_interval


def test_the_interval_of_a_share_is_near_the_normal_one() -> None:
    """400 queries, half right: standard error 0.025, so 0.5 +- 0.049 (normal approximation)."""
    values = np.repeat([[0.0], [1.0]], 200, axis=0)
    low, high = percentile_interval(bootstrap_means(values, np.random.default_rng(0))[:, 0])
    assert low == pytest.approx(0.451, abs=0.006)
    assert high == pytest.approx(0.549, abs=0.006)


def test_columns_are_averaged_over_the_same_queries() -> None:
    values = np.random.default_rng(1).random((50, 1))
    draws = bootstrap_means(np.hstack([values, values + 0.125]), np.random.default_rng(2))
    np.testing.assert_allclose(draws[:, 1] - draws[:, 0], 0.125)
    assert draws[:, 0].std() > 0.01


def test_the_same_seed_gives_the_same_draws() -> None:
    values = np.arange(10.0).reshape(-1, 1)
    first, again, other = (bootstrap_means(values, np.random.default_rng(seed), draws=20) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_one_query_has_no_spread_and_none_is_an_error() -> None:
    assert percentile_interval(bootstrap_means(np.array([[0.25]]), np.random.default_rng(0))[:, 0]) == (0.25, 0.25)
    with pytest.raises(ValueError, match="no query"):
        bootstrap_means(np.zeros((0, 1)), np.random.default_rng(0))


def test_the_percentile_interval_cuts_both_tails() -> None:
    assert percentile_interval(np.linspace(0, 1, 1001)) == pytest.approx((0.025, 0.975))
