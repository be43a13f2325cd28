"""The posterior that the shipped map is compared with."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.first_maps import POOLED, TOLERANCE, cheaper_within, posterior
from coe.router.types import Float64Array


def by_covariance(
    means: Float64Array, error: float, counts: Float64Array, spread: float
) -> tuple[Float64Array, Float64Array]:
    """Means and standard errors of one expert by the covariance matrix of the hierarchy (Gelman et al. 2013, 3.5);
    cells and experts have the same spread."""
    own = counts > 0
    prior = spread**2 * (np.eye(len(counts)) + 1)
    gain = prior[:, own] @ np.linalg.inv(prior[np.ix_(own, own)] + np.diag(error / counts[own]))
    return gain @ means[own], np.sqrt(np.diag(prior - gain @ prior[own]))


def test_with_one_spread_the_posterior_is_that_of_the_normal_hierarchy() -> None:
    counts = np.array([[40.0, 40.0], [4.0, 4.0], [0.0, 0.0]])
    sums = np.array([[12.0, -12.0], [-1.0, 1.0], [0.0, 0.0]])
    squares = sums**2 / np.maximum(counts, 1) + np.array([[8.0, 8.0], [0.6, 0.6], [0.0, 0.0]])
    quality, stderr = posterior(sums, squares, counts, np.array([0.1]))
    pooled = (2 * 8.6 + 0.1) / (2 * 42 + 2)
    error = (8.6 + POOLED * pooled) / (42 + POOLED)
    for expert in range(2):
        means = sums[:, expert] / np.maximum(counts[:, expert], 1)
        expected = by_covariance(means, error, counts[:, expert], 0.1)
        assert quality[:, expert] == pytest.approx(expected[0])
        assert stderr[:, expert] == pytest.approx(expected[1])


def test_the_likelier_spread_counts_more() -> None:
    """Cells that differ by nothing but chance are pulled together, and cells that surely differ are not."""
    counts = np.full((6, 2), 50.0)
    for size, least, most in ((0.002, 0.0, 0.1), (0.3, 0.9, 1.0)):
        means = size * np.array([[1.0, -1.0], [-1.0, 1.0]] * 3)
        found = posterior(counts * means, counts * (means**2 + 0.1), counts)[0]
        assert least < (found / means).mean() < most


def test_the_cheaper_serves_where_it_is_expected_to_lose_no_more_than_the_tolerance() -> None:
    near, far = 0.7 - 0.9 * TOLERANCE, 0.7 - 1.1 * TOLERANCE
    quality = np.array([[0.7, near, 0.2], [0.7, far, 0.2], [0.7, 0.7 + TOLERANCE, 0.2]])
    assert cheaper_within(quality, np.array([1.0, 0.1, 0.0])).tolist() == [1, 0, 1]
    assert cheaper_within(quality, np.array([1.0, 0.9, 0.0])).tolist() == [0, 0, 1]  # hardly cheaper
