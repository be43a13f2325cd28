"""The watch over drift on a real database."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from decision_log.database import Database
from decision_log.feedback_types import FeedbackKind
from decision_log.reward_pages import WAIT_S, RewardPages
from decision_log.tables import FEEDBACK
from gateway.drift_watch import DriftWatch
from gateway.metrics import Metrics
from gateway.part_metrics import drift_metrics
from router.types import Query
from tests.gateway.small_router import small_router
from tests.logged import answered

DATABASES = ("sqlite",)


def add(store: Database, first: int, rewards: list[float], kind: str = "thumb") -> None:
    """Red asks, for which ruby is predicted 0.9, with these rewards."""
    decision = small_router().decide(Query("q", "red"), rng=np.random.default_rng(0))
    numbers = range(first, first + len(rewards))
    store.write_decisions([answered(f"dec-{n}", n, decision) for n in numbers])
    with store.transaction("write feedback") as connection:
        rows = [
            {"decision_id": f"dec-{n}", "kind": kind, "value": value, "at": float(n), "key_id": ""}
            for n, value in zip(numbers, rewards, strict=True)
        ]
        connection.execute(store.insert(FEEDBACK), rows)


async def test_a_fall_alarms_once_in_the_log_and_in_a_metric(store: Database, caplog: pytest.LogCaptureFixture) -> None:
    add(store, 0, [1.0] * 270 + [0.0] * 30)
    watch = DriftWatch(RewardPages(store))
    with caplog.at_level(logging.WARNING):
        assert await watch.look(1e9) == []  # the past fills the windows, and was somebody's alarm then
        assert await watch.look(1e9) == []
        add(store, 300, [0.0] * 100)
        found = await watch.look(1e9)
        assert await watch.look(1e9) == []
    assert "reward minus prediction, ruby" in {change.signal for change in found}
    assert any("drift: reward minus prediction, ruby went from" in message for message in caplog.messages)
    assert watch.rewards == 400
    assert watch.accuracy < 0.5
    text = exposition(watch)
    assert 'coe_drift_alarms_total{signal="reward minus prediction, ruby"} 1.0' in text
    assert "coe_rewards_total 400.0" in text


def exposition(watch: DriftWatch) -> str:
    metrics = Metrics()
    metrics.watch(lambda: drift_metrics(watch))
    return metrics.text().decode()


async def test_fresh_feedback_waits_for_its_decision(store: Database) -> None:
    add(store, 0, [1.0] * 10)
    watch = DriftWatch(RewardPages(store))
    await watch.look(5.0)
    assert watch.rewards == 5
    await watch.look(1e9)
    assert watch.rewards == 10


async def test_feedback_whose_decision_comes_late_is_not_lost(store: Database) -> None:
    """A spool that waited for an hour: rewards of later decisions were taken meanwhile."""
    add(store, 0, [1.0] * 5)
    watch = DriftWatch(RewardPages(store))
    late = {"decision_id": "dec-100", "kind": "thumb", "value": 0.0, "at": 10.0, "key_id": ""}
    with store.transaction("write feedback") as connection:
        connection.execute(store.insert(FEEDBACK), [late])
    add(store, 20, [1.0] * 5)
    await watch.look(1000.0)
    assert watch.rewards == 10
    await watch.look(3600.0)
    assert watch.rewards == 10
    add(store, 100, [1.0], kind="score")  # its decision and another reward of it
    await watch.look(3600.0)
    assert watch.rewards == 12
    await watch.look(3600.0)
    assert watch.rewards == 12


async def test_a_decision_that_never_comes_is_waited_for_no_longer_than_a_day(store: Database) -> None:
    watch = DriftWatch(RewardPages(store))
    lost = {"decision_id": "dec-gone", "kind": "thumb", "value": 0.0, "at": 10.0, "key_id": ""}
    with store.transaction("write feedback") as connection:
        connection.execute(store.insert(FEEDBACK), [lost])
    await watch.look(11.0)
    assert len(watch._waiting) == 1
    await watch.look(10.0 + WAIT_S + 1.0)
    assert len(watch._waiting) == 0


async def test_only_the_last_rewards_fill_the_windows(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.drift_watch.HISTORY", 20)
    add(store, 0, [1.0] * 50)
    watch = DriftWatch(RewardPages(store))
    await watch.look(1e9)
    assert watch.rewards == 20


async def test_feedback_of_every_kind_is_a_reward(store: Database) -> None:
    for number, kind in enumerate(FeedbackKind):
        add(store, number, [1.0], kind)
    watch = DriftWatch(RewardPages(store))
    await watch.look(1e9)
    assert watch.rewards == len(FeedbackKind)
