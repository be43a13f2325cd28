"""Pairs of answers that a judge compared: who is read, what they teach, and what they say of a new expert."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.router.feedback_config import FeedbackConfig
from coe.training.evidence import gather_evidence
from coe.training.feedback_bias import UNLIMITED
from coe.training.judged_pairs import JudgedPairs
from coe.training.log_comparison import compare_new_experts
from coe.training.log_table import LogTable, collect
from tests.gateway.small_router import EXPERTS
from tests.training.log_records import record
from tests.training.small_comparison import asked, log_table, mapping, outcomes, small_comparison

CATEGORIES = ("red", "green")


def judged(
    n: int, value: float, pair: tuple[str, str] = ("plain", "ruby"), category: str = "red", **changes
) -> LogTable:
    """So many pairs whose first answer is preferred by `value`, from second 0.5 on."""
    asked_at = np.arange(n).repeat(2)
    log = log_table([category] * 2 * n, pair * n, [value, 1.0 - value] * n, at=asked_at + 0.5, question=asked_at)
    return replace(log, is_held_out=np.zeros(2 * n, dtype=bool), **changes)


def test_what_a_judge_preferred_is_read_beside_what_people_rated():
    said = {"d0": [("left", "right", 1.0), ("left", "third", 0.5)], "d1": [("other", "right", 1.0)]}
    keys = ("one", "two", "two", "one")
    records = [record(seq, key_id=key, text="again") for seq, key in enumerate(keys)]
    log = collect(records, {"d2": 1.0, "d3": 0.0}, preferences=said)
    pairs = log.judged
    assert pairs is not None
    assert [pairs.experts[number] for number in pairs.expert] == ["left", "right", "left", "third"]
    assert pairs.reward.tolist() == [1.0, 0.0, 0.5, 0.5]  # none of d1, which another expert had answered
    assert log.key.tolist() == [0, 1]
    assert pairs.key.tolist() == [1] * 4  # the key of d0 is that of d3
    assert set(pairs.question) == {log.question[1]}  # they asked the same
    assert len(log) == 2


def test_nothing_is_learned_from_pairs_of_a_key_that_weighs_nothing():
    records, said = [record(0, key_id="spam"), record(1, key_id="one")], {"d0": [("left", "right", 1.0)]}
    feedback = FeedbackConfig(key_weights={"spam": 0.0})
    assert collect(records, {"d1": 1.0}, feedback=feedback, preferences=said).judged is None
    assert collect(records, {"d1": 1.0}, preferences=said).judged is not None


def test_pairs_of_a_key_count_as_its_weight_says_and_at_most_once():
    keys = {"half": 0.5, "full": 1.0, "double": 2.0}
    records = [record(number, key_id=key) for number, key in enumerate(keys)]
    said = {each.decision_id: [("left", "right", 1.0)] for each in records}
    pairs = collect(records, {"d0": 1.0}, feedback=FeedbackConfig(key_weights=keys), preferences=said).judged
    assert pairs.weight.tolist() == [0.5, 0.5, 1.0, 1.0, 1.0, 1.0]

    graded = outcomes(("red", "green") * 10, [[0.5, 0.5, 0.4]] * 20)
    logs = [replace(log_table([], [], []), judged=judged(100, 1.0, weight=np.full(200, weight))) for weight in (0, 0.5)]
    before, after = (gather_evidence(graded, log, CATEGORIES).matrix.count[0].sum() for log in logs)
    assert after - before == 50
    log, comparison = judged(1, 1.0, weight=np.full(2, 0.5)), small_comparison(mapping(red="plain"))
    found = JudgedPairs(log, comparison.choices(asked(log))).gains(EXPERTS, np.array([EXPERTS.index("plain")]))
    assert found.gain.tolist() == [0.5]


def test_pairs_are_part_of_what_a_log_is_known_by():
    records = [record(0)]
    plain, left, right = (
        collect(records, {"d0": 1.0}, preferences=said).fingerprint
        for said in ({}, {"d0": [("left", "right", 1.0)]}, {"d0": [("left", "right", 0.0)]})
    )
    assert len({plain, left, right}) == 3


def test_without_a_judge_nothing_is_read():
    assert collect([record(0)], {"d0": 1.0}).judged is None


@pytest.mark.parametrize(("value", "lead"), [(1.0, 0.9), (0.5, 0.0), (0.0, -0.9)])
def test_a_preference_is_a_difference_of_the_two_and_leaves_the_others_alone(value, lead):
    """All had the same grades, which the judge outweighs: nine tenths of what it says remain."""
    graded = outcomes(("red", "green") * 40, [[0.4, 0.6, 0.5], [0.5, 0.5, 0.5]] * 20 + [[0.6, 0.4, 0.5]] * 40)
    log = replace(log_table([], [], []), judged=judged(2000, value))
    before, after = (gather_evidence(graded, each, CATEGORIES).matrix for each in (replace(log, judged=None), log))
    ruby, emerald, plain = (EXPERTS.index(name) for name in ("ruby", "emerald", "plain"))
    assert after.quality[0, plain] - after.quality[0, ruby] == pytest.approx(lead, abs=0.1)
    assert after.quality[0, emerald] == pytest.approx(before.quality[0, emerald], abs=1e-6)
    assert after.count[0, plain] - before.count[0, plain] == 1000  # half an answer each


def test_a_part_that_is_left_out_has_its_pairs_left_out():
    graded = outcomes(("red", "green") * 10, [[0.5, 0.5, 0.4]] * 20)
    log = replace(log_table([], [], []), judged=judged(100, 1.0))
    fold = int(log.judged.fold[0])
    kept = gather_evidence(graded, log.without(fold), CATEGORIES).matrix.count[0].sum()
    assert kept == 30 + 90


def test_one_key_is_no_more_than_its_share_of_a_category():
    graded = outcomes(("red", "green") * 10, [[0.5, 0.5, 0.4]] * 20)
    log = replace(log_table([], [], []), judged=judged(500, 1.0, key=np.zeros(1000, dtype=np.int64), max_key_share=0.2))
    found = gather_evidence(graded, log, CATEGORIES).matrix.count[0].sum()
    assert found == pytest.approx(30 / 0.8)  # a fifth of the whole is the key's


@pytest.mark.parametrize(
    ("pair", "category", "gain"),
    [
        (("plain", "ruby"), "red", [1.0]),
        (("ruby", "plain"), "red", [-1.0]),
        (("emerald", "ruby"), "red", []),  # of somebody else
        (("plain", "emerald"), "green", []),  # stays as it is
        (("ruby", "emerald"), "green", []),
    ],
)
def test_a_pair_says_what_a_newcomer_gains_if_it_is_of_it_and_of_who_serves(pair, category, gain):
    log = judged(1, 1.0, pair, category)
    told = asked(log)
    comparison = small_comparison(mapping(red="plain"))
    found = JudgedPairs(log, comparison.choices(told)).gains(EXPERTS, np.array([EXPERTS.index("plain")]))
    assert found.gain.tolist() == gain
    nobody = JudgedPairs(log, comparison.choices(told)).gains(EXPERTS, np.array([], dtype=np.int64))
    assert nobody.gain.tolist() == []


def test_gains_of_answers_and_pairs_are_in_order_of_time():
    log, pairs = log_table(["red"] * 3, ["ruby"] * 3, [1.0] * 3, key=np.array([7, 8, 9])), judged(2, 0.0)
    told = asked(pairs)
    comparison = small_comparison(mapping(red="plain"))
    gains = JudgedPairs(pairs, comparison.choices(told)).gains(EXPERTS, np.array([EXPERTS.index("plain")]))
    gain, voices = gains.among(np.array([0.1, 0.2, 0.3]), log)
    assert gain.tolist() == [0.1, -1.0, 0.2, -1.0, 0.3]
    assert voices.tolist() == [7, UNLIMITED, 8, UNLIMITED, 9]


@pytest.mark.parametrize(("value", "is_evident"), [(1.0, True), (0.5, False), (0.0, False)])
def test_a_judge_shows_what_too_few_ratings_do_not(value, is_evident):
    """Plain came after two answers, and forty ratings since then have not told it from ruby."""
    n = 42
    log = log_table(["red"] * n, ["ruby", "plain"] * (n // 2), [0.5] * n)
    chances = ({"ruby": 1.0, "emerald": 0.0},) * 2 + (dict.fromkeys(EXPERTS, 0.5),) * (n - 2)
    told = replace(asked(log), chances=chances)
    comparison = small_comparison(mapping(red="plain"))
    pairs = judged(40, value)
    alone = compare_new_experts(comparison, told, np.ones(n), comparison.choices(told))
    both = compare_new_experts(
        comparison,
        told,
        np.ones(n),
        comparison.choices(told),
        pairs=JudgedPairs(pairs, comparison.choices(asked(pairs))),
    )
    assert alone is not None
    assert both is not None
    assert (alone.gain.is_evident, both.gain.is_evident) == (False, is_evident)
