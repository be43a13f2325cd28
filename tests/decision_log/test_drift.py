"""Changes that alarm, and changes that do not."""

from __future__ import annotations

import numpy as np
import pytest

from decision_log.drift import DriftMonitor, SignalChange, is_right


def changes(rewards: dict[str, list[float]], predicted: dict[str, float]) -> list[SignalChange]:
    """Experts take turns as long as each has rewards left."""
    monitor = DriftMonitor()
    n = max(map(len, rewards.values()))
    return [
        change
        for i in range(n)
        for expert, values in rewards.items()
        if i < len(values)
        for change in monitor.rated(expert, values[i], predicted[expert])
    ]


def test_the_expert_that_got_worse_is_named() -> None:
    rng = np.random.default_rng(0)
    good, worse = (rng.random(1000) < 0.8).astype(float).tolist(), (rng.random(1000) < 0.8).astype(float).tolist()
    worse[500:] = (rng.random(500) < 0.3).astype(float).tolist()
    found = changes({"a": good, "b": worse}, {"a": 0.8, "b": 0.8})
    (own,) = [change for change in found if change.signal.startswith("reward minus")]
    assert own.signal == "reward minus prediction, b"
    assert (own.before, own.after) == (pytest.approx(0, abs=0.05), pytest.approx(-0.5, abs=0.2))
    assert {"reward", "prequential accuracy"} <= {change.signal for change in found}


def test_other_queries_for_an_expert_move_its_rewards_and_not_its_surprises() -> None:
    rng = np.random.default_rng(1)
    monitor = DriftMonitor()
    found = []
    for i in range(2000):
        easy = i < 1000
        found += monitor.rated("a", float(rng.random() < (0.9 if easy else 0.3)), 0.9 if easy else 0.3)
    assert "reward" in {change.signal for change in found}
    assert "reward minus prediction, a" not in {change.signal for change in found}


def test_strange_queries_alarm_without_any_feedback() -> None:
    rng = np.random.default_rng(2)
    monitor = DriftMonitor()
    found = [
        change
        for i in range(1000)
        for change in monitor.decided(float(rng.normal(0.3 if i < 500 else 0.9, 0.1)), is_fallback=i >= 500)
    ]
    assert {change.signal for change in found} == {"uncertainty of the category", "share of fallbacks"}


def test_an_answer_without_a_prediction_counts_as_a_reward_only() -> None:
    monitor = DriftMonitor()
    monitor.rated("a", 1.0, None)
    assert monitor.counts == {"reward": 1}
    assert is_right(0.5, 0.9)
    assert not is_right(0.49, 0.9)
