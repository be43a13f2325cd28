"""Evidence of a log, and the traffic's mix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.training.evidence import gather_evidence
from tests.gateway.small_router import EXPERTS
from tests.training.small_log import log_table, outcomes

CATEGORIES = ("red", "green")
GRADED = outcomes(("red", "red", "green", "green"), [[0.5, 0.4, 0.3]] * 4)


def test_answers_count_by_their_weight() -> None:
    """The better answers stand for three times as many as the others do; people are more generous than graders."""
    n = 400
    weight, reward = np.tile([1.5, 0.5], n // 2), np.tile([1.0, 0.0], n // 2)
    log = log_table(["red"] * n, ["ruby", "ruby", "emerald", "emerald"] * (n // 4), reward.tolist(), weight=weight)
    known = gather_evidence(GRADED, log, CATEGORIES).matrix
    assert known.count[0, :2].tolist() == [2 + n / 2] * 2
    assert known.quality[0, EXPERTS.index("ruby")] == pytest.approx(
        known.quality[0, EXPERTS.index("emerald")], abs=0.01
    )


def test_the_maps_mass_is_the_mix_of_the_traffic() -> None:
    """Two graded prompts of each category weigh as 20 decisions beside 180 that were answered."""
    log = replace(log_table([], [], []), traffic={"red": 135, "green": 45})
    prior = gather_evidence(GRADED, replace(log, traffic={}), CATEGORIES).matrix.mass
    mass = gather_evidence(GRADED, log, CATEGORIES).matrix.mass
    assert mass == pytest.approx((np.array([135, 45, 0]) + 20 * prior) / 200)
    assert mass[0] > 0.7


@pytest.mark.parametrize(("elsewhere", "part"), [(0.5, 1.0), (np.nan, 0.0)])
def test_who_was_not_tried_shares_the_level_of_a_new_category(elsewhere: float, part: float) -> None:
    """Nobody was graded in green, and ruby, 0.5 elsewhere, fails there 24 times: a prior of eight answers for its own
    part, and one for the level. Where nothing says how good ruby is, its failures tell nothing of the category."""
    graded = outcomes(("red", "red", "red", "red"), [[elsewhere, 0.4, 0.3]] * 4)
    log = log_table(["green"] * 24, ["ruby"] * 24, [0.0] * 24)
    precision = 8 * 24 / 32
    level = -0.5 * part * precision / (precision + 8)
    found = gather_evidence(graded, log, CATEGORIES).matrix
    assert found.quality[1, 1:] == pytest.approx([0.4 + level, 0.3 + level], abs=1e-6)
