"""Times of changed quality: false alarms at the stated rate, changes found soon, and whose answers are left out."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.training.change_points import (
    MIN_SIDE,
    ChangePoint,
    chance_of_cut,
    find_change_points,
    is_outdated,
    is_stale,
    last_change,
)
from coe.training.feedback_bias import UNLIMITED
from coe.training.log_table import LogTable


def rewards_of(rng, *parts) -> np.ndarray:
    return np.concatenate([(rng.random(n) < rate).astype(np.float64) for n, rate in parts])


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.8])
def test_steady_rewards_raise_few_false_alarms(rate):
    rng = np.random.default_rng(1)
    alarms = sum(last_change(rewards_of(rng, (400, rate)), 0.05) > 0 for _ in range(400))
    assert alarms / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_a_degradation_is_found_where_it_happened():
    rng = np.random.default_rng(2)
    found = [last_change(rewards_of(rng, (500, 0.8), (100, 0.4)), 0.001) for _ in range(50)]
    assert np.median(found) == pytest.approx(500, abs=5)
    assert min(found) > 450


def test_of_several_changes_the_last_counts():
    rng = np.random.default_rng(3)
    found = last_change(rewards_of(rng, (300, 0.9), (300, 0.2), (300, 0.9)), 0.001)
    assert found == pytest.approx(600, abs=10)


@given(st.lists(st.floats(0, 1), max_size=120), st.floats(1e-6, 0.2))
def test_both_sides_of_a_cut_are_long_enough(rewards, delta):
    cut = last_change(np.array(rewards), delta)
    assert cut == 0 or MIN_SIDE <= cut <= len(rewards) - MIN_SIDE


def test_the_chance_falls_with_the_statistic_and_is_a_probability():
    chances = [chance_of_cut(z, 0.05) for z in np.linspace(0, 8, 50)]
    assert all(0 <= chance <= 1 for chance in chances)
    assert chances[-1] < 1e-11
    assert all(first >= second for first, second in itertools.pairwise(chances))


def log_of(category, expert, reward, *, at=None) -> LogTable:
    n = len(reward)
    return LogTable(
        categories=("sql", "facts"),
        experts=("left", "right"),
        category=np.asarray(category, dtype=np.int32),
        expert=np.asarray(expert, dtype=np.int32),
        reward=np.asarray(reward, dtype=np.float64),
        weight=np.ones(n),
        at=np.arange(n, dtype=np.float64) if at is None else at,
        key=np.full(n, UNLIMITED),
        is_failure=np.zeros(n, dtype=bool),
        planned=np.asarray(expert, dtype=np.int32),
        challenger=np.full(n, -1, dtype=np.int32),
        planned_chance=np.ones(n),
        challenger_chance=np.zeros(n),
        estimated_gain=np.zeros(n),
    )


def test_a_change_of_one_cell_is_named_and_only_its_answers_are_stale():
    rng = np.random.default_rng(4)
    n = 1200
    category, expert = rng.integers(0, 2, n), rng.integers(0, 2, n)
    fell = (category == 0) & (expert == 1) & (np.arange(n) >= 700)
    log = log_of(category, expert, (rng.random(n) < np.where(fell, 0.2, 0.8)).astype(float))
    changes = find_change_points(log)
    assert [(c.category, c.expert) for c in changes] == [("sql", "right")]
    assert changes[0].at == pytest.approx(700, abs=20)
    assert changes[0].before > 0.7 > 0.4 > changes[0].after
    stale, outdated = is_stale(log, changes), is_outdated(log, changes)
    assert set(zip(category[stale].tolist(), expert[stale].tolist(), strict=True)) == {(0, 1)}
    assert set(category[outdated].tolist()) == {0}
    assert set(expert[outdated].tolist()) == {0, 1}
    assert log.at[stale].max() < changes[0].at <= log.at[(category == 0) & ~outdated].min() + 1e-9


def test_a_log_without_changes_leaves_nothing_out():
    log = log_of([0, 1], [0, 1], [1.0, 0.0])
    assert find_change_points(log) == ()
    assert not is_stale(log, ()).any()
    other = ChangePoint("facts", "left", 5.0, 0.9, 0.1)
    assert is_outdated(log, (other,)).tolist() == [False, True]


def test_a_replaced_model_is_seen_in_all_its_categories_at_once():
    """Thirty rewards a category after the change are too few for each alone."""
    rng = np.random.default_rng(6)
    names = tuple(f"c{i}" for i in range(8))
    at = np.arange(8 * 230)
    category, after = at % 8, at >= 8 * 200
    reward = (rng.random(len(at)) < np.where(after, 0.35, 0.6)).astype(float)
    log = replace(log_of(category, np.zeros(len(at)), reward), categories=names)
    changes = find_change_points(log)
    assert {change.category for change in changes} == set(names)
    assert len({change.at for change in changes}) == 1
    assert changes[0].at == pytest.approx(1600, abs=60)
    one = (rng.random(len(at)) < np.where(after & (category == 0), 0.05, 0.6)).astype(float)
    assert "c1" not in {c.category for c in find_change_points(replace(log, reward=one))}
