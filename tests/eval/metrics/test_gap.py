"""The closed share of the gap between best single and oracle."""

from __future__ import annotations

import numpy as np
import pytest

from coe.eval.metrics.intervals import gap_closed


def test_reference_values_and_values_without_a_gap_are_left_out() -> None:
    router, single, oracle = np.array([0.61, 0.55, 0.57]), np.array([0.57, 0.57, 0.57]), np.array([0.82, 0.82, 0.57])
    assert gap_closed(router, single, oracle) == pytest.approx([0.16, -0.08])
