"""Intervals of the comparison against reference values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.intervals import wilson_interval
from coe.gateway.replay import mean_of, share_of


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=50))
def test_a_mean_has_the_normal_interval(values):
    found = mean_of(values)
    half = 1.959963984540054 * np.std(values, ddof=1) / np.sqrt(len(values))
    assert found.value == pytest.approx(np.mean(values), abs=1e-9)
    assert found.interval.high - found.value == pytest.approx(half, abs=1e-6)


def test_a_share_has_wilsons_interval_and_nothing_has_neither():
    found = share_of(10, 100)
    assert (found.value, found.interval.low, found.interval.high) == (0.1, *wilson_interval(0.1, 100))
    assert (share_of(0, 0), mean_of([])) == (None, None)
