"""Reference values of RouterArena's score, computed by hand from its formula."""

from __future__ import annotations

import pytest

from eval.metrics.quality_over_cost import router_arena_score


@pytest.mark.parametrize(
    ("accuracy", "cost", "expected"),
    [
        (1.0, 0.0044, 1.0),
        (0.5, 0.0044, 1.1 * 0.5 / 1.05),
        (0.5, 1.0, 1.1 * 0.5 * 0.494043 / (0.05 + 0.494043)),  # log2 200 = 7.643856, log2 0.0044 = -7.828281
        (0.8, 0.938083, 1.1 * 0.8 * 0.5 / 0.58),  # the geometric middle: C = 0.5
        (0.9, 200.0, 0.0),
        (0.0, 200.0, 0.0),
        (0.0, 1.0, 0.0),
    ],
)
def test_reference_values(accuracy: float, cost: float, expected: float) -> None:
    assert router_arena_score(accuracy, cost) == pytest.approx(expected, abs=1e-5)


def test_cost_is_clamped_at_both_ends() -> None:
    assert router_arena_score(0.7, 0.0) == router_arena_score(0.7, 0.0044) > router_arena_score(0.7, 0.01)
    assert router_arena_score(0.7, 500.0) == 0.0


def test_a_mean_that_rounding_left_above_one_counts_as_one() -> None:
    assert router_arena_score(1.0000000000000002, 1.0) == router_arena_score(1.0, 1.0)
