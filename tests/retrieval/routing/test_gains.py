from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.retrieval.routing.fusion import fusions
from coe.retrieval.routing.gains import FOREIGN_LOSS, GainModel, data_set_gains, fit_gains, foreign_gains
from coe.retrieval.routing.pilot_library import PilotLibrary, RoutingSettings
from coe.retrieval.types import Arm
from tests.retrieval.pilot_data import ARMS, LAW, corner, small_library


def with_arms(library: PilotLibrary, arms: tuple[Arm, ...], scores: list[float]) -> PilotLibrary:
    """The library as if these arms had been measured, with the same scores on every query."""
    rows = np.tile(np.array(scores, dtype=np.float32), (len(library.keys), 1))
    manifest = library.manifest.model_copy(update={"arms": arms})
    return replace(library, manifest=manifest, scores=rows, measured=np.ones(rows.shape, dtype=bool))


def test_a_data_set_speaks_as_far_as_the_query_is_as_near_as_its_own() -> None:
    library = small_library()
    model = GainModel(
        domains=library.domains,
        typical=library.domains.typical(0.5),
        gains=np.array([[0, 0.4], [0, -0.2]], dtype=np.float32),
        measured=np.ones((2, 2), dtype=np.float32),
        foreign=np.array([0, -0.1], dtype=np.float32),
        plain=0,
        settings=RoutingSettings(temperature=0.5, prior_mass=0.25, margin=0.05),
    )
    query = corner(LAW, 1, seed=4)
    gains, nearest, is_near = model.score(query)
    mass, typical = library.domains.masses(query, 0.5)[0][0], library.domains.typical(0.5)
    say = mass / mass.sum() * (mass / typical) / (mass / typical + 0.25)
    assert gains[0, 1] == pytest.approx(0.4 * say[0] - 0.2 * say[1] - 0.1 * (1 - say.sum()), rel=1e-4)
    assert gains[0, 0] == pytest.approx(0.05)
    assert 0.9 < nearest[0] <= 1
    assert is_near[0]


def test_a_data_sets_gain_is_its_mean_less_half_a_standard_error() -> None:
    library = small_library()
    library.scores[:8, 1] = [0.5, 1, 0.5, 1, 0.5, 1, 0.5, 1]
    gains, measured = data_set_gains(library, [0, 1], 0, library.data_set == LAW)
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
    assert foreign_gains(gains, np.ones_like(gains), 0).tolist() == pytest.approx([0, -0.1])


def test_no_arm_is_thought_to_beat_the_plain_one_on_foreign_domains() -> None:
    gains = np.array([[-0.1, 0, 0.5], [-0.1, 0, 0.4], [-0.3, 0, 0.4]], dtype=np.float32)
    assert foreign_gains(gains, np.ones_like(gains), 1).tolist() == pytest.approx([-0.3, 0, 0])
    few = foreign_gains(gains[:2], np.ones_like(gains[:2]), 1)
    assert few.tolist() == pytest.approx([-FOREIGN_LOSS, 0, -FOREIGN_LOSS])


def test_gains_are_over_the_plain_fusion_where_it_was_measured() -> None:
    arms = (ARMS[0], fusions("base", "bm25")[0], ARMS[1])
    library = with_arms(small_library(), arms, [0.5, 0.6, 0.9])
    model = fit_gains(library, [0, 1, 2], RoutingSettings(margin=0.01))
    assert model.plain == 1
    np.testing.assert_allclose(model.gains, [[-0.1, 0, 0.3]] * 2, atol=1e-6)
    assert model.score(corner(LAW, 1))[0][0, 1] == pytest.approx(0.01)
    assert fit_gains(library, [0, 2], RoutingSettings()).gains[0].tolist() == pytest.approx([0, 0.4])
