"""The closest values that never fall, against worked values and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from eval.metrics.isotonic import never_falling


def test_falls_are_pooled() -> None:
    assert never_falling([0.3, 0.5, 0.4, 0.6]) == pytest.approx([0.3, 0.45, 0.45, 0.6])
    assert never_falling([3, 2, 1]) == [2, 2, 2]
    assert never_falling([1, 2, 3]) == [1, 2, 3]
    assert never_falling([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_it_is_isotonic_regression(values: list[float]) -> None:
    expected = IsotonicRegression().fit_transform(np.arange(len(values)), np.array(values, dtype=np.float64))
    found = never_falling(values)
    assert found == pytest.approx(expected.tolist(), abs=1e-9)
    assert (np.diff(found) >= -1e-12).all()
