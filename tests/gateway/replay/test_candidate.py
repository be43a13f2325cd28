"""Intervals of the comparison against reference values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.replay import mean_of, share_of


def test_wilsons_interval_has_its_published_value():
    # Agresti & Coull 1998: 10 of 100 gives 0.0552 to 0.1744; none of 20 gives 0 to 0.1611.
    found = share_of(10, 100)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.0552, 0.1744), abs=5e-5)
    assert share_of(0, 20).interval.high == pytest.approx(0.1611, abs=5e-5)
    assert share_of(0, 0) is None


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=50))
def test_mean_from_sums_is_the_mean(values):
    found = mean_of(sum(values), sum(v * v for v in values), len(values))
    half = 1.959963984540054 * np.std(values, ddof=1) / np.sqrt(len(values))
    assert found.value == pytest.approx(np.mean(values), abs=1e-9)
    assert found.interval.high - found.value == pytest.approx(half, abs=1e-6)


def test_the_mean_of_nothing_is_none():
    assert mean_of(0.0, 0.0, 0) is None
