"""Weight of a logged answer in retraining: who stays silent, and whose word counts."""

import numpy as np
import pytest

from coe.decision_log.decision_record import TerminalState
from coe.router.config.feedback import FeedbackConfig
from coe.training.log_table import NOTHING_TO_WEIGH, build_table
from tests.training.log_records import record


def test_the_silent_count_for_more():
    """Of facts all answers get feedback, of code one in five: five times the weight, but for shrinkage."""
    records = [record(seq, ("code", "facts")[seq % 2]) for seq in range(2000)]
    rewards = {f"d{seq}": 1.0 for seq in range(2000) if seq % 2 == 1 or seq % 10 == 0}
    log = build_table(records, rewards)
    by_category = {name: log.weight[log.category == i] for i, name in enumerate(log.categories)}
    assert by_category["code"].mean() / by_category["facts"].mean() == pytest.approx(5, rel=0.1)
    assert log.weight.mean() == pytest.approx(1.0)
    share = by_category["code"].sum() / log.weight.sum()
    assert share == pytest.approx(0.5, abs=0.02)  # the traffic's mix, though one in six replies is about code


def test_keys_count_as_experts_yaml_says():
    records = [record(seq, key_id="half" if seq % 2 else "full") for seq in range(100)]
    rewards = {f"d{seq}": 0.5 for seq in range(100)}
    log = build_table(records, rewards, feedback=FeedbackConfig(key_weights={"half": 0.5}))
    assert log.weight[1] / log.weight[0] == pytest.approx(0.5)
    assert log.weight.mean() == pytest.approx(1.0)


def test_a_signal_tells_answers_apart_only_when_it_agrees():
    """Disliked answers were cut off, and always get feedback; others one time in four."""
    is_cut = {seq for seq in range(1000) if seq % 4 == 0}
    records = [record(seq, finish_reason="length" if seq in is_cut else "stop") for seq in range(1000)]
    rewards = {f"d{seq}": 0.0 if seq in is_cut else 1.0 for seq in range(1000) if seq in is_cut or seq % 16 == 1}
    corrected = build_table(records, rewards)
    assert np.average(corrected.reward, weights=corrected.weight) == pytest.approx(0.75, abs=0.1)
    random = {f"d{seq}" for seq in range(0, 1000, 3)}
    assert np.ptp(build_table([record(seq) for seq in range(1000)], rewards, random).weight) == 0.0


FAILED = {"state": TerminalState.UPSTREAM_ERROR, "served_expert": None, "status": 502}


def test_a_failure_stands_for_itself_and_a_reply_for_those_who_said_nothing():
    """One answer in ten is rated, all as good; a fifth of the requests fail: mean reward 0.8."""
    records = [record(seq, **(FAILED if seq % 5 == 0 else {})) for seq in range(2000)]
    rewards = {f"d{seq}": 1.0 for seq in range(2000) if seq % 10 == 1}
    log = build_table(records, rewards)
    assert (log.is_failure.sum(), len(log)) == (400, 600)
    assert np.average(log.reward, weights=log.weight) == pytest.approx(0.8, abs=0.005)
    assert log.weight.mean() == pytest.approx(1.0)
    assert log.traffic == {"code": 2000}


def test_a_rating_of_a_failure_changes_nothing():
    failed = [record(seq, **FAILED) for seq in range(3)]
    log = build_table([*failed, record(3)], {"d0": 1.0, "d3": 1.0})
    assert log.reward.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_where_nobody_rates_failures_are_left_out():
    """Nothing is known then of the answers that they would be weighed against."""
    log = build_table([record(0), *(record(seq, **FAILED) for seq in range(1, 4))], {})
    assert len(log) == 0
    assert log.dropped == {"no feedback": 1, NOTHING_TO_WEIGH: 3}


def test_an_empty_log_has_no_weights():
    assert len(build_table([], {}).weight) == 0
