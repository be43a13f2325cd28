import pytest

from coe.base.intervals import wilson_interval


def test_wilson_against_published_values():
    # Newcombe 1998 ("Two-sided confidence intervals for the single proportion"), table I, method 3
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_needs_draws():
    with pytest.raises(ValueError, match="n is 0"):
        wilson_interval(0.5, 0)
