"""Wilson's interval by published values; reliability bins and ECE by hand."""

from __future__ import annotations

import numpy as np
import pytest

from coe.base.shares import calibration_error, reliability_bins, wilson_interval

PREDICTED = np.array([0.1, 0.1, 0.9, 0.9, 0.9, 1.0])
OBSERVED = np.array([0.0, 1.0, 1.0, 1.0, 0.25, 1.0])


def test_bins_by_hand() -> None:
    found = reliability_bins(PREDICTED, OBSERVED, bins=10)
    np.testing.assert_allclose(found.predicted, [0.1, 3.7 / 4])
    np.testing.assert_allclose(found.observed, [0.5, 3.25 / 4])
    assert found.count.tolist() == [2, 4]


def test_error_by_hand() -> None:
    assert calibration_error(PREDICTED, OBSERVED, bins=10) == pytest.approx((0.8 + 0.45) / 6)


def test_nothing_has_no_error_and_no_share_is_above_one() -> None:
    assert calibration_error(np.array([]), np.array([])) is None
    with pytest.raises(ValueError, match="expected 0 to 1"):
        reliability_bins(np.array([0.5, 1.5]), np.array([0.0, 1.0]))


def test_wilson_against_published_values():
    # Newcombe 1998 ("Two-sided confidence intervals for the single proportion"), table I, method 3
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_needs_draws():
    with pytest.raises(ValueError, match="n is 0"):
        wilson_interval(0.5, 0)
