from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrieval.routing.gains import HYBRID_GAIN, GainModel, data_set_gains, fit_gains, foreign_gains
from retrieval.routing.grouped_pilots import group_pilots, winners
from retrieval.routing.pilot_library import RoutingMethod, RoutingSettings
from retrieval.types import Arm
from tests.retrieval.pilot_data import ARMS, LAW, corner, small_library


def test_a_data_set_speaks_as_far_as_the_query_is_as_near_as_its_own() -> None:
    library = small_library()
    model = GainModel(
        domains=library.domains,
        typical=library.domains.typical(0.5),
        gains=np.array([[0, 0.4], [0, -0.2]], dtype=np.float32),
        measured=np.ones((2, 2), dtype=np.float32),
        foreign=np.array([0, 0.1], dtype=np.float32),
        settings=RoutingSettings(temperature=0.5, prior_mass=0.25, margin=0.05),
    )
    query = corner(LAW, 1, seed=4)
    gains, nearest, is_near = model.score(query)
    mass, typical = library.domains.masses(query, 0.5)[0][0], library.domains.typical(0.5)
    say = mass / mass.sum() * (mass / typical) / (mass / typical + 0.25)
    assert gains[0, 1] == pytest.approx(0.4 * say[0] - 0.2 * say[1] + 0.1 * (1 - say.sum()), rel=1e-4)
    assert gains[0, 0] == pytest.approx(0.05)
    assert 0.9 < nearest[0] <= 1
    assert is_near[0]


def test_a_data_sets_gain_is_its_mean_less_half_a_standard_error() -> None:
    library = small_library()
    library.scores[:8, 1] = [0.5, 1, 0.5, 1, 0.5, 1, 0.5, 1]
    gains, measured = data_set_gains(library, [0, 1], library.data_set == LAW)
    change = np.array([0, 0.5] * 4)
    assert gains[1] == pytest.approx(change.mean() - 0.5 * change.std(ddof=1) / np.sqrt(8))
    assert measured.tolist() == [1, 1]


def test_a_query_that_is_like_nothing_at_all_has_the_foreign_gain() -> None:
    model = fit_gains(small_library(), [0, 1], RoutingSettings(temperature=0.01))
    gains, _, is_near = model.score(-small_library().embeddings[:1])
    assert gains[0].tolist() == pytest.approx([0.0, model.foreign[1]])
    assert not is_near[0]


def test_a_query_without_a_label_says_where_its_data_set_lies_and_nothing_of_gains() -> None:
    library = small_library(RoutingSettings(prior_mass=10.0))
    query = corner(4, 1)
    more = replace(library, located=np.repeat(query, 5, axis=0), located_in=np.full(5, LAW))
    before, after = (fit_gains(each, [0, 1], each.manifest.settings) for each in (library, more))
    assert before.gains.tolist() == after.gains.tolist()
    assert after.score(query)[0][0, 1] > before.score(query)[0][0, 1]
    assert after.score(query)[1][0] == pytest.approx(1)


def test_what_was_not_measured_does_not_count() -> None:
    library = small_library()
    library.measured[: len(library.keys) // 2, 1] = False
    gains, _, _ = fit_gains(library, [0, 1], RoutingSettings()).score(corner(LAW, 1, seed=3))
    assert gains[0, 1] < 0  # only medicine's labels know the law expert now


def test_the_foreign_gain_leaves_out_an_experts_best_data_set() -> None:
    gains = np.array([[0, 0.5], [0, -0.1], [0, -0.1]], dtype=np.float32)
    found = foreign_gains(gains, np.ones_like(gains), ARMS[:2])
    assert found.tolist() == pytest.approx([0, -0.1])


def test_with_few_data_sets_only_the_usual_hybrid_is_granted_a_gain() -> None:
    hybrid = Arm(members=("base", "bm25"), weights=(0.7, 0.3))
    found = foreign_gains(np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32), [ARMS[0], ARMS[1], hybrid])
    assert found.tolist() == pytest.approx([0, -HYBRID_GAIN, HYBRID_GAIN])


def test_ties_are_labelled_with_the_first_arm() -> None:
    scores = np.array([[0.5, 0.5, 0.2], [0.1, 0.3, 0.3], [0.0, 0.9, 0.1]], dtype=np.float32)
    measured = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1]], dtype=bool)
    assert winners(scores, measured).tolist() == [0, 1, 2]


def test_one_centroid_per_data_set_and_winner() -> None:
    library = small_library(RoutingSettings(method=RoutingMethod.MEAN))
    grouped = group_pilots(library, [0, 1, 2])
    assert grouped.owner.tolist() == [1, 2]
    expected = library.embeddings[:8].mean(axis=0)
    np.testing.assert_allclose(grouped.pilots[0], expected / np.linalg.norm(expected), rtol=1e-5)


def test_mean_and_max_differ_where_an_expert_has_several_pilots() -> None:
    library = small_library(RoutingSettings(method=RoutingMethod.MEAN))
    library.scores[8:, 1] = 0.9  # the law expert wins on medicine too: two pilots, in opposite corners
    by_mean = group_pilots(library, [0, 1]).score(corner(LAW, 1))[0][0, 1]
    library = small_library(RoutingSettings(method=RoutingMethod.MAX))
    library.scores[8:, 1] = 0.9
    by_max = group_pilots(library, [0, 1]).score(corner(LAW, 1))[0][0, 1]
    assert by_max == pytest.approx(1, abs=0.1)
    assert by_mean == pytest.approx(0.5, abs=0.15)
