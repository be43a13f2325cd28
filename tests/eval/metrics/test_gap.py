"""The closed share of the gap between best single and oracle."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics.bootstrap import gap_closed, gap_closed_draws


def test_reference_values() -> None:
    assert gap_closed(0.61, 0.57, 0.82) == pytest.approx(0.16)
    assert gap_closed(0.55, 0.57, 0.82) == pytest.approx(-0.08)
    assert gap_closed(0.57, 0.57, 0.57) is None


def test_draws_without_a_gap_are_left_out() -> None:
    drawn = gap_closed_draws(np.array([0.6, 0.7]), np.array([0.5, 0.7]), np.array([0.9, 0.7]))
    np.testing.assert_allclose(drawn, [0.25])
