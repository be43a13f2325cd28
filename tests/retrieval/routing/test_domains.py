"""Places of data sets, against reference values."""

from __future__ import annotations

import numpy as np
import pytest

from coe.retrieval.routing.domains import UNRELATED, find_domains, place, typical_mass, whitener
from tests.retrieval.pilot_data import LAW, MEDICINE, corner, unit


def test_whitened_products_are_those_of_the_inverse_covariance_within_groups() -> None:
    rng = np.random.default_rng(3)
    groups = [rng.normal(size=(40, 5)) @ np.diag([3, 1, 1, 0.3, 0.1]) + 5 * axis for axis in np.eye(5)[:3]]
    groups = [group.astype(np.float32) for group in groups]
    within = np.concatenate([group - group.mean(axis=0) for group in groups])
    covariance = within.T @ within / len(within)
    shrunk = (120 * covariance + 5 * np.trace(covariance) / 5 * np.eye(5)) / 125
    queries = rng.normal(size=(4, 5)).astype(np.float32)
    placed = queries @ whitener(groups)
    np.testing.assert_allclose(placed @ placed.T, queries @ np.linalg.inv(shrunk) @ queries.T, rtol=1e-3, atol=1e-4)


def test_where_nothing_scatters_the_space_stays() -> None:
    groups = [np.eye(3, dtype=np.float32)[:1], np.eye(3, dtype=np.float32)[1:2]]
    np.testing.assert_array_equal(whitener(groups), np.eye(3))


def test_masses_are_sums_over_each_data_sets_queries_in_that_space() -> None:
    pilots, places = np.concatenate([corner(LAW, 4), corner(MEDICINE, 3)]), np.repeat([7, 2], [4, 3])
    found = find_domains(pilots, places)
    query = unit(np.array([[1.0, 0.2, 0.1, 0.0, 0.0, 0.0]]))
    mass, nearest = found.masses(query, 0.5)
    white = whitener([corner(MEDICINE, 3), corner(LAW, 4)])
    cosine = (place(query, white) @ place(pilots, white).T)[0]
    weights = np.exp((cosine - 1) / 0.5)
    assert mass[0].tolist() == pytest.approx([weights[4:].sum(), weights[:4].sum()], rel=1e-4)  # by their numbers
    assert nearest[0] == pytest.approx(float(query[0] @ pilots[cosine.argmax()]), rel=1e-5)


def test_the_typical_mass_is_that_of_a_query_among_its_own() -> None:
    queries = np.eye(4, dtype=np.float32)
    queries[3] = queries[2]
    masses = [3 * np.exp(-2.0), 3 * np.exp(-2.0), 1 + 2 * np.exp(-2.0), 1 + 2 * np.exp(-2.0)]
    assert typical_mass(queries, 0.5) == pytest.approx(np.median(masses), rel=1e-5)
    assert typical_mass(queries[:1], 0.5) == pytest.approx(np.exp((UNRELATED - 1) / 0.5))
