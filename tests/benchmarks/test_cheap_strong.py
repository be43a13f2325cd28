"""APGR and CPT: by hand, against brute force over tie orders, and their intervals."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import cheap_strong

WEAK = np.array([1.0, 0.0, 0.0, 1.0])
STRONG = np.array([1.0, 1.0, 1.0, 0.0])
"""Gains 0, 1, 1, -1: the strong expert is 0.25 better on average."""


def test_the_oracle_order_by_hand() -> None:
    """PGR after 0, 1, 2, 3, 4 calls: 0, 1, 2, 2, 1 (gains 1, 1, 0, -1 over a gap of 1)."""
    curve = cheap_strong.call_curve(STRONG - WEAK, WEAK, STRONG)
    np.testing.assert_allclose(curve.share, [0, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.quality, [0.5, 1.0, 1.0, 0.75])
    np.testing.assert_allclose(curve.recovered(), [0, 2, 2, 1])
    assert cheap_strong.average_gap_recovered(curve) == pytest.approx(0.5 * 1 + 0.25 * 2 + 0.25 * 1.5)
    assert cheap_strong.call_share_for(curve, 50) == pytest.approx(0.125)
    assert cheap_strong.call_share_for(curve, 80) == pytest.approx(0.2)


def test_a_random_order_recovers_what_it_calls() -> None:
    figures = cheap_strong.call_figures(np.zeros(4), WEAK, STRONG, np.random.default_rng(0), draws=50)
    assert (figures.apgr.mean, *figures.apgr.interval) == pytest.approx((0.5, 0.5, 0.5))
    assert {level: found.mean for level, found in figures.cpt.items()} == pytest.approx({50: 0.5, 80: 0.8})


def test_the_worst_order_needs_nearly_all_calls() -> None:
    curve = cheap_strong.call_curve(WEAK - STRONG, WEAK, STRONG)
    np.testing.assert_allclose(curve.recovered(), [0, -1, -1, 1])
    assert cheap_strong.call_share_for(curve, 50) == pytest.approx(0.5 + 0.75 * 0.5)


def test_no_gap_gives_no_figures_and_nan_is_refused() -> None:
    figures = cheap_strong.call_figures(np.zeros(4), STRONG, WEAK, np.random.default_rng(0), draws=5)
    assert (figures.apgr, figures.cpt) == (None, {})
    with pytest.raises(ValueError, match="expected a gap"):
        cheap_strong.call_curve(np.zeros(4), STRONG, WEAK).recovered()
    with pytest.raises(ValueError, match="query 1 is NaN"):
        cheap_strong.call_curve(np.array([0.0, np.nan]), WEAK[:2], STRONG[:2])


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])),
        min_size=2,
        max_size=5,
    )
)
def test_ties_are_the_mean_over_all_their_orders(rows: list[tuple[int, float, float]]) -> None:
    """Brute force: the mean, over all orders that respect the predicted gain, of the score after j strong calls."""
    predicted, weak, strong = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    n = len(rows)
    valid = [order for order in permutations(range(n)) if (np.diff(predicted[list(order)]) <= 0).all()]
    expected = np.mean(
        [[weak.mean() + (strong - weak)[list(order[:j])].sum() / n for j in range(n + 1)] for order in valid], axis=0
    )
    curve = cheap_strong.call_curve(predicted, weak, strong)
    np.testing.assert_allclose(np.interp(np.arange(n + 1) / n, curve.share, curve.quality), expected, atol=1e-12)


def test_a_resampled_curve_is_the_curve_of_the_drawn_queries() -> None:
    rng = np.random.default_rng(4)
    predicted, weak, strong = rng.random(30).round(1), rng.random(30), rng.random(30) + 0.2
    drawn = next(cheap_strong.resampled_curves(predicted, weak, strong, np.random.default_rng(5), 1))
    index = np.random.default_rng(5).integers(30, size=30)
    again = cheap_strong.call_curve(predicted[index], weak[index], strong[index])
    assert cheap_strong.average_gap_recovered(drawn) == pytest.approx(cheap_strong.average_gap_recovered(again))
    for level in (50, 80):
        assert cheap_strong.call_share_for(drawn, level) == pytest.approx(cheap_strong.call_share_for(again, level))


def test_the_interval_holds_the_figure_and_narrows_with_data() -> None:
    def width(n: int) -> float:
        rng = np.random.default_rng(6)
        weak = (rng.random(n) < 0.5).astype(np.float64)
        strong = (rng.random(n) < 0.8).astype(np.float64)
        predicted = 1 - weak + 0.5 * rng.random(n)
        figures = cheap_strong.call_figures(predicted, weak, strong, rng, draws=200)
        for found in (figures.apgr, figures.cpt[50]):
            assert found.interval[0] < found.mean < found.interval[1]
        return figures.apgr.interval[1] - figures.apgr.interval[0]

    assert width(1600) < 0.5 * width(100)
