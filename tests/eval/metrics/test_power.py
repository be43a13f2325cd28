"""Sample sizes against worked values and against a simulation."""

from __future__ import annotations

import numpy as np
import pytest

from coe.eval.metrics.intervals import queries_to_show, smallest_shown


@pytest.mark.parametrize(("deviation", "difference", "queries"), [(1.0, 0.5, 32), (1.0, 0.2, 197), (0.5, 0.02, 4906)])
def test_paired_sample_sizes_are_those_of_the_tables(deviation: float, difference: float, queries: int) -> None:
    """(1.96 + 0.8416)^2 (s / d)^2 = 31.4, 196.2 and 4905.5, from whatever sample the standard error is."""
    for n in (54, 1000):
        assert queries_to_show(difference, deviation / np.sqrt(n), n) == queries


def test_a_difference_of_that_size_shows_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    n, deviation = 80, 0.6
    true = smallest_shown(deviation / np.sqrt(n))
    means = true + deviation * rng.standard_normal((4000, n)).mean(axis=1)
    shown = (np.abs(means) > 1.96 * deviation / np.sqrt(n)).mean()
    assert shown == pytest.approx(0.8, abs=0.02)


def test_what_differs_in_nothing_says_nothing_of_how_many() -> None:
    assert queries_to_show(0.02, 0.0, 54) is None
    with pytest.raises(ValueError, match="difference 0 is not allowed; expected more than 0"):
        queries_to_show(0.0, 0.1, 54)
