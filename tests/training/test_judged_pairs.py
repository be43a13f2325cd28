"""Pairs of answers that a judge compared: who is read, and what they teach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.router.config.feedback import FeedbackConfig
from coe.training.evidence import gather_evidence
from coe.training.log_table import LogTable, build_table
from tests.gateway.small_router import EXPERTS
from tests.training.log_records import record
from tests.training.small_log import log_table, outcomes

CATEGORIES = ("red", "green")


def judged(
    n: int, value: float, pair: tuple[str, str] = ("plain", "ruby"), category: str = "red", **changes
) -> LogTable:
    """So many pairs whose first answer is preferred by `value`, from second 0.5 on."""
    asked_at = np.arange(n).repeat(2)
    log = log_table([category] * 2 * n, pair * n, [value, 1.0 - value] * n, at=asked_at + 0.5)
    return replace(log, **changes)


def test_what_a_judge_preferred_is_read_beside_what_people_rated():
    said = {"d0": [("left", "right", 1.0), ("left", "third", 0.5)], "d1": [("other", "right", 1.0)]}
    keys = ("one", "two", "two", "one")
    records = [record(seq, key_id=key, text="again") for seq, key in enumerate(keys)]
    log = build_table(records, {"d2": 1.0, "d3": 0.0}, preferences=said)
    pairs = log.judged
    assert pairs is not None
    assert [pairs.experts[number] for number in pairs.expert] == ["left", "right", "left", "third"]
    assert pairs.reward.tolist() == [1.0, 0.0, 0.5, 0.5]  # none of d1, which another expert had answered
    assert log.key.tolist() == [0, 1]
    assert pairs.key.tolist() == [1] * 4  # the key of d0 is that of d3
    assert len(log) == 2


def test_nothing_is_learned_from_pairs_of_a_key_that_weighs_nothing():
    records, said = [record(0, key_id="spam"), record(1, key_id="one")], {"d0": [("left", "right", 1.0)]}
    feedback = FeedbackConfig(key_weights={"spam": 0.0})
    assert build_table(records, {"d1": 1.0}, feedback=feedback, preferences=said).judged is None
    assert build_table(records, {"d1": 1.0}, preferences=said).judged is not None


def test_pairs_of_a_key_count_as_its_weight_says_and_at_most_once():
    keys = {"half": 0.5, "full": 1.0, "double": 2.0}
    records = [record(number, key_id=key) for number, key in enumerate(keys)]
    said = {each.decision_id: [("left", "right", 1.0)] for each in records}
    pairs = build_table(records, {"d0": 1.0}, feedback=FeedbackConfig(key_weights=keys), preferences=said).judged
    assert pairs.weight.tolist() == [0.5, 0.5, 1.0, 1.0, 1.0, 1.0]

    graded = outcomes(("red", "green") * 10, [[0.5, 0.5, 0.4]] * 20)
    logs = [replace(log_table([], [], []), judged=judged(100, 1.0, weight=np.full(200, weight))) for weight in (0, 0.5)]
    before, after = (gather_evidence(graded, log, CATEGORIES).matrix.count[0].sum() for log in logs)
    assert after - before == 50


def test_pairs_are_part_of_what_a_log_is_known_by():
    records = [record(0)]
    plain, left, right = (
        build_table(records, {"d0": 1.0}, preferences=said).fingerprint
        for said in ({}, {"d0": [("left", "right", 1.0)]}, {"d0": [("left", "right", 0.0)]})
    )
    assert len({plain, left, right}) == 3


def test_without_a_judge_nothing_is_read():
    assert build_table([record(0)], {"d0": 1.0}).judged is None


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


def test_one_key_is_no_more_than_its_share_of_a_category():
    graded = outcomes(("red", "green") * 10, [[0.5, 0.5, 0.4]] * 20)
    log = replace(log_table([], [], []), judged=judged(500, 1.0, key=np.zeros(1000, dtype=np.int64), max_key_share=0.2))
    found = gather_evidence(graded, log, CATEGORIES).matrix.count[0].sum()
    assert found == pytest.approx(30 / 0.8)  # a fifth of the whole is the key's
