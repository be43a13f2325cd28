"""The capital of a bettor: a martingale where the mean gain lies on the bound, and enough where it is well above."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from coe.eval.metrics import betting
from coe.eval.metrics.betting import LEVEL, MAX_OVERSHOOT, REQUIRED_CAPITAL, capital, hedging_stake, still_needed

OUTCOMES = (-1.0, 0.0, 1.0)


def drawn(win: float, lose: float, n: int, columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice([1.0, -1.0, 0.0], p=[win, lose, 1 - win - lose], size=(n, columns))


@pytest.mark.parametrize(("win", "lose"), [(0.2, 0.25), (0.0, 0.05), (0.45, 0.5)])
def test_on_the_bound_the_mean_capital_over_all_sequences_is_that_of_the_start(monkeypatch, win, lose):
    """Every sequence of six gains, with a new stake after each two."""
    monkeypatch.setattr(betting, "BLOCK", 2)
    monkeypatch.setattr(betting, "MAX_OVERSHOOT", math.inf)
    chance = dict(zip(OUTCOMES, (lose, 1 - win - lose, win), strict=True))
    sequences = np.array(list(itertools.product(OUTCOMES, repeat=6))).T
    weight = np.prod([[chance[gain] for gain in row] for row in sequences.tolist()], axis=0)
    found = capital(sequences, win - lose, np.ones(6))
    assert found.shape == (3, 3**6)
    assert (found > 0).all()
    np.testing.assert_allclose(found @ weight, 1.0, atol=1e-9)
    capped = pytest.MonkeyPatch()
    capped.setattr(betting, "MAX_OVERSHOOT", 1.2 * LEVEL)
    assert (capital(sequences, win - lose, np.ones(6))[-1] @ weight) < 1.0
    capped.undo()


def test_a_stake_that_never_changes_gains_by_compound_interest(monkeypatch):
    monkeypatch.setattr(betting, "HEDGED_SHARE", 1e-12)
    monkeypatch.setattr(betting, "CONSTANT_STAKES", (0.5,))
    found = capital(np.zeros((40, 1)), -0.01, np.ones(40))[:, 0]
    np.testing.assert_allclose(found, [(1 + 0.5 * 0.01 / 0.99) ** 20, (1 + 0.5 * 0.01 / 0.99) ** 40], rtol=1e-9)
    dearer = capital(np.zeros((20, 1)), -0.01, np.full(20, 2.0))[0, 0]  # whoever may lose twice as much stakes half
    assert dearer == pytest.approx((1 + 0.5 * 0.01 / 1.99) ** 20)


def test_the_hedging_stake_is_that_of_a_digital_option():
    """phi(0) / (0.5 * 0.2 * sqrt(100)) at the money; at a price of 0.1587 the sum lies a standard deviation below."""
    stake = hedging_stake(np.array([0.5, 0.158655254]), np.full(2, 0.04), 100.0)
    np.testing.assert_allclose(stake, [0.3989423 / 1.0, 0.2419707 / (0.158655254 * 2.0)], rtol=1e-6)


@pytest.mark.parametrize(("win", "lose"), [(0.0, 0.01), (0.02, 0.03), (0.2, 0.21)])
def test_who_looks_after_every_block_is_wrong_at_most_as_often_as_said(win, lose):
    found = capital(drawn(win, lose, 1000, 4000), -0.01, np.ones(1000))
    assert (found.max(axis=0) >= REQUIRED_CAPITAL).mean() < LEVEL


GOOD = [(0.02, 0.003, 400, 0.85), (0.0, 0.0, 500, 1.0), (0.1, 0.0, 120, 0.9)]


@pytest.mark.parametrize(("win", "lose", "n", "least"), GOOD)
def test_a_plan_that_is_good_is_shown(win, lose, n, least):
    found = capital(drawn(win, lose, n, 400), -0.01, np.ones(n))
    assert (found.max(axis=0) >= REQUIRED_CAPITAL).mean() >= least


@pytest.mark.parametrize("before", [(0.05, 0.0), (0.02, 0.005), (0.0, 0.0)])
def test_a_plan_that_becomes_worse_loses_what_it_has_shown(before):
    win, lose = before
    gains = np.concatenate([drawn(win, lose, 600, 200), drawn(0.03, 0.09, 400, 200)])
    found = capital(gains, -0.01, np.ones(1000))
    assert (found[29] >= REQUIRED_CAPITAL).mean() > 0.8
    assert found.max() == pytest.approx(MAX_OVERSHOOT * REQUIRED_CAPITAL)
    assert (found[-1] >= REQUIRED_CAPITAL).mean() < 0.02


def test_what_is_still_needed_is_about_what_it_takes():
    rng = np.random.default_rng(1)
    gains = drawn(0.02, 0.003, 100, 300, seed=2)
    told = [still_needed(column, -0.01, np.ones(100), rng) for column in gains.T]
    known = [n for n in told if n is not None]
    assert 100 < np.median(known) < 400
    assert still_needed(gains[:, 0] - 0.1, -0.01, np.ones(100), rng) is None  # it measures worse than is allowed
    assert still_needed(gains[:10, 0], -0.01, np.ones(10), rng) is None
    assert still_needed(np.tile([1.0, -1.0], 60), -0.0, np.ones(120), rng) is None
