"""Evidence of a gain: a fair game whatever is drawn, the price that it replicates, and which gains it sees."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from coe.training.gate import LEVEL, WITHOUT_ONE
from coe.training.off_policy import BLOCK, OF_CANDIDATES, OF_NEW_EXPERTS, hedging_stake, log_e_gain

ENOUGH = math.log(1 / LEVEL)


def gains_of(rng, n: int, gain: float, *, share: float = 0.4) -> tuple[np.ndarray, float]:
    """Doubly robust gains of an expert tried in that share of the queries, by a model that is wrong about it, and how
    far one may lie below 0."""
    tried = rng.random(n) < share
    reward = (rng.random(n) < np.where(tried, 0.5 + gain, 0.5)).astype(float)
    model, weight = 0.7, np.where(tried, 1 / share, -1 / (1 - share))
    return 0.2 + weight * (reward - np.where(tried, model, 0.5)), model / share - 0.2 + 1


@given(st.integers(0, 2**32), st.floats(0.1, 100.0), st.floats(-0.1, 0.1))
def test_no_gains_make_a_debt(seed, lost, least):
    """The worst that may come, among whatever else: capital stays above 0, so its logarithm is finite."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 200))
    gains = np.where(rng.random(n) < 0.5, -lost, rng.uniform(-lost, 10 * lost, n))
    assert math.isfinite(log_e_gain(gains, rng.integers(-1, 4, n), least, lost))


@pytest.mark.parametrize("least", [0.1, -0.05])
def test_nobody_wins_on_average_whoever_draws_the_gains(least):
    """An adversary who sees everything so far chooses each gain's two values, whose mean is the least that counts. Over
    all paths the capital stays on average what it was, and is less without the luckiest voice."""
    rng = np.random.default_rng(1)
    free, scale = 8, rng.uniform(0.2, 1.0, 3)
    first = rng.uniform(-1.0, 3.0, BLOCK - 2)  # the past, which is what it is
    voices = rng.integers(0, 2, len(first) + free)
    capital, bounded, chance = [], [], []
    start = math.exp(log_e_gain(first + least, np.full(len(first), -1), least, 1.0))
    for signs in itertools.product((False, True), repeat=free):
        gains, odds = list(first), 1.0
        for is_up in signs:
            down = scale[len(gains) % 3] if sum(gains) > 0 else 1.0
            up = down * (4.0 if gains[-1] < 0 else 0.5)
            odds *= down / (up + down) if is_up else up / (up + down)
            gains.append(up if is_up else -down)
        capital.append(math.exp(log_e_gain(least + np.array(gains), np.full(len(gains), -1), least, 1.0)))
        bounded.append(math.exp(log_e_gain(least + np.array(gains), voices, least, 1.0)))
        chance.append(odds)
    assert np.dot(chance, capital) == pytest.approx(start)
    assert (np.array(bounded) <= np.array(capital) + 1e-12).all()
    assert np.dot(chance, bounded) < start
    assert np.std(capital) > 0.05


def test_betting_ends_at_twenty():
    """Evidence that was there at one look is there at the next, whatever comes."""

    def evidence(gains: np.ndarray) -> float:
        return log_e_gain(gains, np.full(len(gains), -1), 0.0, 2.0)

    enough = next(n for n in range(BLOCK, 1000, BLOCK) if evidence(np.full(n, 0.3)) >= ENOUGH)
    assert evidence(np.concatenate([np.full(enough, 0.3), np.full(200, -2.0)])) == evidence(np.full(enough, 0.3))


def test_the_capital_is_the_price_of_a_digital_option():
    """Random gains of one size: 120 Phi((S - strike) / (s sqrt(N - t))) for 0.6 of the capital, where S is their sum
    and the strike is where the price begins at 1; no path is far from it."""
    rng = np.random.default_rng(6)
    s, t = 0.6, 1500
    n = (norm.ppf(1 - LEVEL) / 0.02) ** 2 * s**2
    strike = -s * math.sqrt(n) * norm.ppf(1 / 120)
    ratios = []
    for _ in range(20):
        gains = s * (2.0 * (rng.random(t) < 0.52) - 1.0)
        price = 120 * norm.cdf((gains.sum() - strike) / (s * math.sqrt(n - t)))
        steady = np.mean([np.prod(1 + stake / 2.0 * gains) for stake in (0.2, 0.8)])
        expected = 0.6 * price + 0.4 * steady
        found = math.exp(log_e_gain(gains, np.full(t, -1), 0.0, 2.0))
        if found < 1 / LEVEL:
            ratios.append(found / expected)
    assert len(ratios) > 8
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.05)


def test_a_stake_has_its_reference_value():
    """phi(d) / (Phi(d) s sqrt(N - t)) with the price at a tenth of the prize: three tenths of the plan are to come, or,
    after twice the plan, a quarter of 50 answers more than were seen."""
    planned = (1.6448536 / 0.02) ** 2 * 0.25
    seen = planned * np.array([0.7, 2.0])
    left = np.array([planned * 0.3, 0.25 * (seen[1] + 50)])
    variance = np.full(2, 0.25)
    found = hedging_stake(np.full(2, 0.1), variance, OF_CANDIDATES.left(variance, seen))
    assert found == pytest.approx(norm.pdf(norm.ppf(0.1)) / (0.1 * 0.5 * np.sqrt(left)), rel=1e-6)


@pytest.mark.slow
@pytest.mark.simulation
@pytest.mark.parametrize("bets", [OF_CANDIDATES, OF_NEW_EXPERTS])
def test_evidence_of_no_gain_seldom_reaches_what_is_enough_at_any_time(bets):
    rng = np.random.default_rng(4)
    runs = 1000
    drawn = [gains_of(rng, 6000, 0.0) for _ in range(runs)]  # longer than the plan; betting ends at what is enough
    enough = -math.log(bets.level)
    hits = sum(log_e_gain(gains, np.full(6000, -1), 0.0, lost, bets) >= enough for gains, lost in drawn)
    assert hits / runs < bets.level + 2 * (bets.level / runs) ** 0.5


def test_what_a_new_expert_gains_is_seen_within_its_trial():
    """Two errors after 1,200 answers: a test at 10% that looks once, there, sees 76% (1 - Phi(1.28 - 2))."""
    rng = np.random.default_rng(6)
    n, s = 1200, 0.7
    drawn = [rng.normal(2.0 * s / n**0.5, s, n).clip(-4, 4) for _ in range(20)]

    def seen(bets):
        return np.mean([log_e_gain(gains, np.full(n, -1), 0, 4, bets) >= -math.log(bets.level) for gains in drawn])

    assert seen(OF_NEW_EXPERTS) > max(0.5, seen(OF_CANDIDATES))


@pytest.mark.parametrize(("errors", "least", "most"), [(3.0, 0.6, 1.0), (0.0, 0.0, 0.1)])
def test_a_gain_of_three_errors_is_evidence_more_often_than_not(errors, least, most):
    """By constant stakes it takes 2.45 with the best of them in hindsight, and half of those of three errors fail."""
    rng = np.random.default_rng(5)
    n, s = 3000, 0.7
    drawn = [rng.normal(errors * s / n**0.5, s, n).clip(-4, 4) for _ in range(25)]
    assert least <= np.mean([log_e_gain(gains, np.full(n, -1), 0, 4) >= ENOUGH for gains in drawn]) <= most


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_no_voice_alone_is_evidence(seed, n_voices):
    """The least over who is left out; and what one voice says where all others say nothing comes to 20 / 15 at most."""
    rng = np.random.default_rng(seed)
    gains, lost = gains_of(rng, 60, 0.1)
    voices = rng.integers(0, n_voices, 60)
    found = log_e_gain(gains, voices, 0.0, lost)
    each = [log_e_gain(gains, np.where(voices == name, 0, -1), 0.0, lost) for name in range(n_voices)]
    assert found == pytest.approx(min(each))
    whole = log_e_gain(gains, np.full(60, -1), 0.0, lost)
    assert log_e_gain(gains, np.zeros(60, int), 0.0, lost) == whole, "who rates alone is not left out"
    loud = np.where(voices == 0, np.abs(gains), 0.0)
    assert log_e_gain(loud, voices, 0.0, lost) <= -math.log(WITHOUT_ONE) + 1e-12
