"""Evidence of a candidate from a log: the half that does not judge, and the traffic's mix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.training.candidate import logged_queries
from coe.training.change_points import find_change_points
from coe.training.evidence import beside_serving, gather_evidence
from tests.gateway.small_router import EXPERTS
from tests.training.small_comparison import asked, log_table, mapping, outcomes, small_comparison

CATEGORIES = ("red", "green")
GRADED_RED = outcomes(("red",) * 4, [[0.5, 0.4, 0.3]] * 4)
GRADED = outcomes(("red", "red", "green", "green"), [[0.5, 0.4, 0.3]] * 4)


def test_a_part_that_is_left_out_teaches_nothing() -> None:
    """Answers that judge were all bad, the others all good: the map sees the good ones only."""
    n = 200
    is_held_out = np.arange(n) % 2 == 0
    log = log_table(["red"] * n, ["ruby"] * n, (~is_held_out).astype(float).tolist(), is_held_out=is_held_out)
    learned = gather_evidence(GRADED, log, CATEGORIES)
    alone = gather_evidence(GRADED, log.rows(~is_held_out), CATEGORIES)
    for name, values in learned.matrix.arrays().items():
        np.testing.assert_array_equal(values, getattr(alone.matrix, name), err_msg=name)
    assert learned.reward_offset == alone.reward_offset
    assert learned.matrix.count[0, EXPERTS.index("ruby")] == pytest.approx(2 + n / 2)


def test_a_change_that_only_the_held_out_half_shows_is_not_found() -> None:
    """Answers that judge fell from 1 to 0 halfway, those that teach did not change; the other way round it is found."""
    n = 400
    is_held_out = np.arange(n) % 2 == 0
    fell = np.where(is_held_out & (np.arange(n) >= n // 2), 0.0, 1.0)
    log = log_table(["red"] * n, ["ruby"] * n, fell.tolist(), is_held_out=is_held_out)
    assert find_change_points(log) == ()
    (found,) = find_change_points(replace(log, is_held_out=~is_held_out))
    assert (found.category, found.expert) == ("red", "ruby")


def test_answers_count_by_their_weight() -> None:
    """Rewards of red lie 0.5 apart, and the better ones stand for three times as many answers."""
    n = 400
    weight = np.tile([1.5, 0.5], n // 2)
    reward = np.tile([1.0, 0.0], n // 2)
    log = log_table(["red"] * n, ["ruby"] * n, reward.tolist(), weight=weight, is_held_out=np.zeros(n, dtype=bool))
    assert gather_evidence(GRADED, log, CATEGORIES).reward_offset == pytest.approx(0.75 - 0.5, abs=0.02)


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
    log = log_table(["green"] * 24, ["ruby"] * 24, [0.0] * 24, is_held_out=np.zeros(24, dtype=bool))
    precision = 8 * 24 / 32
    level = -0.5 * part * precision / (precision + 8)
    found = gather_evidence(graded, log, CATEGORIES).matrix
    assert found.quality[1, 1:] == pytest.approx([0.4 + level, 0.3 + level], abs=1e-6)
    assert found.is_guess.tolist() == [False, True, False]


@pytest.mark.parametrize(("lead", "serves"), [(0.24, "ruby"), (0.26, "emerald")])
def test_a_category_without_grades_changes_hands_by_a_lead_of_a_quarter_of_its_error(lead: float, serves: str) -> None:
    """Red has grades, and keeps who serves it; nobody serves `general`."""
    log = log_table(["green"] * 24, ["ruby"] * 24, [0.0] * 24, is_held_out=np.zeros(24, dtype=bool))
    found = gather_evidence(GRADED_RED, log, CATEGORIES).matrix
    quality = np.array([[0.1, 0.9, 0.1], [0.5, 0.5 + lead * np.hypot(0.1, 0.1), 0.3], [0.5, 0.6, 0.1]], np.float32)
    found = replace(found, quality=quality, stderr=np.full_like(quality, 0.1))
    served = beside_serving(found, ("red", "green", "general"), EXPERTS, dict.fromkeys(CATEGORIES, "ruby"))
    assert served.serving.tolist() == [EXPERTS.index("ruby"), EXPERTS.index(serves), -1]
    unserved = beside_serving(found, ("red", "green", "general"), EXPERTS, {})
    assert unserved.serving.tolist() == [-1, EXPERTS.index("emerald"), -1]


@pytest.mark.parametrize(("keys", "is_failure", "is_guess"), [(5, False, True), (4, False, False), (5, True, False)])
def test_a_category_without_grades_is_a_guess_from_the_first_rating_that_counts(
    keys: int, is_failure: bool, is_guess: bool
) -> None:
    """Failures are nobody's rating, and of fewer than five keys each would be more than a fifth of what is known."""
    n = 20
    log = log_table(
        ["green"] * n, ["ruby"] * n, [0.0] * n, is_held_out=np.zeros(n, dtype=bool), key=np.arange(n) % keys
    )
    log = replace(log, is_failure=np.full(n, is_failure), max_key_share=0.2)
    assert gather_evidence(GRADED_RED, log, CATEGORIES).matrix.is_guess.tolist() == [False, is_guess, False]


@pytest.mark.parametrize(("propensity", "reward", "worth"), [(0.25, 1.0, 2.5), (0.5, 0.0, -0.5), (0.001, 1.0, 100.5)])
def test_a_logged_choice_is_worth_what_its_expert_earned_beyond_the_model(
    propensity: float, reward: float, worth: float
) -> None:
    """w + min(1 / p, 200) (r - w) at a quality of 1/2 everywhere; of the others nothing was seen, so w."""
    log = log_table(["red"], ["emerald"], [reward], propensity=np.array([propensity]))
    evidence = small_comparison(mapping()).evidence
    found = logged_queries(asked(log), replace(evidence, outcomes=GRADED), CATEGORIES)
    assert found.worth.tolist() == [pytest.approx([0.5, worth, 0.5])]
    assert found.table.scores[0, EXPERTS.index("emerald")] == reward
