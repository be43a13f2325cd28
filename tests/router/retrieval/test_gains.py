from __future__ import annotations

import numpy as np
import pytest

from router.retrieval.gains import GainModel, fit_gains, foreign_gains
from router.retrieval.grouped import group_pilots, winners
from router.retrieval.library import RoutingMethod, RoutingSettings
from tests.router.retrieval.pilot_data import LAW, corner, small_library


def test_a_gain_is_the_weighted_mean_pulled_towards_the_prior() -> None:
    model = GainModel(
        pilots=np.eye(2, dtype=np.float32),
        gains=np.array([[0, 0.4], [0, -0.2]], dtype=np.float32),
        measured=np.ones((2, 2), dtype=np.float32),
        foreign=np.array([0, 0.1], dtype=np.float32),
        temperature=0.5,
        prior_mass=0.25,
        margin=0.05,
    )
    gains, nearest, is_near = model.score(np.array([[1.0, 0.0]], dtype=np.float32))
    far = np.exp(-2.0)  # the weight of a pilot at cosine 0
    assert gains[0, 1] == pytest.approx((0.4 - 0.2 * far + 0.25 * 0.1) / (1 + far + 0.25), rel=1e-5)
    assert gains[0, 0] == pytest.approx(0.05)
    assert nearest[0] == 1
    assert is_near[0]


def test_what_was_not_measured_does_not_count() -> None:
    library = small_library()
    library.measured[: len(library.keys) // 2, 1] = False
    gains, _, _ = fit_gains(library, [0, 1]).score(corner(LAW, 1, seed=3))
    assert gains[0, 1] < 0  # only medicine's labels know the law expert now


def test_the_foreign_gain_leaves_out_an_experts_best_data_set() -> None:
    gains = np.array([[0, 0.5], [0, -0.1], [0, -0.1]], dtype=np.float32)
    found = foreign_gains(gains, np.ones_like(gains), np.array([0, 1, 2]))
    assert found.tolist() == pytest.approx([0, -0.1])


def test_with_one_data_set_nothing_is_known_of_foreign_ones() -> None:
    found = foreign_gains(np.array([[0, 0.5]], dtype=np.float32), np.ones((1, 2), np.float32), np.array([0]))
    assert found[0] == 0
    assert found[1] < 0


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
