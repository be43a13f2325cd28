import numpy as np
import pytest

from base.intervals import wilson_interval
from eval.robustness.flips import clustered_share


def test_wilson_against_published_values():
    # Newcombe 1998 ("Two-sided confidence intervals for the single proportion"), table I, method 3
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_needs_draws():
    with pytest.raises(ValueError, match="n is 0"):
        wilson_interval(0.5, 0)


def test_independent_draws_count_as_such_and_copies_do_not():
    rng = np.random.default_rng(0)
    independent = rng.binomial(4, 0.2, size=500).astype(float)
    copies = 4.0 * rng.binomial(1, 0.2, size=500)
    four = np.full(500, 4.0)
    _, low, high = clustered_share(independent, four)
    _, low_copies, high_copies = clustered_share(copies, four)
    share = independent.sum() / 2000
    assert (low, high) == pytest.approx(wilson_interval(share, 2000), abs=0.003)
    assert (low_copies, high_copies) == pytest.approx(wilson_interval(copies.sum() / 2000, 500), abs=0.003)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        risks = rng.beta(0.5, 4.5, size=80)  # texts differ in how easily they flip; the mean is 0.1
        flips = rng.binomial(5, risks).astype(float)
        _, low, high = clustered_share(flips, np.full(80, 5.0))
        hits += low <= 0.1 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_no_hit_leaves_room_for_some():
    assert clustered_share(np.zeros(30), np.full(30, 10.0)) == (0.0, 0.0, wilson_interval(0, 30)[1])
    with pytest.raises(ValueError, match="no text"):
        clustered_share(np.zeros(0), np.zeros(0))
