"""Reply-rate bias and the agreement of signals: reference values, properties, and simulations with known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.decision_log.feedback_types import ImplicitKind
from coe.training.feedback_bias import (
    MAX_REPLY_WEIGHT,
    ReplyBin,
    ReplyRates,
    agreement,
    correlation,
    difference,
)

ABORTED, REASKED = ImplicitKind.ABORTED, ImplicitKind.REASKED


def rates_of(*bins: tuple[ReplyBin, int, int]) -> ReplyRates:
    rates = ReplyRates()
    for reply_bin, answers, replies in bins:
        for number in range(answers):
            rates.count(reply_bin, 1, int(number < replies))
    return rates


def test_reply_rates_are_shrunk_step_by_step():
    code, facts = ReplyBin("code", "a"), ReplyBin("facts", "a")
    rates = rates_of((code, 80, 40), (code._replace(signals=(ABORTED,)), 20, 20), (facts, 100, 0))
    assert rates.overall == 0.3
    category = (60 + 20 * 0.3) / (100 + 20)  # 0.55
    assert rates.propensity(ReplyBin("code", "new")) == pytest.approx(category)
    pair = (60 + 20 * category) / 120
    assert rates.propensity(code) == pytest.approx((40 + 20 * pair) / 100)
    assert rates.propensity(code._replace(signals=(ABORTED,))) == pytest.approx((20 + 20 * pair) / 40)
    assert rates.weight(code) == pytest.approx(0.3 / rates.propensity(code))


def test_bins_can_forget_signals():
    plain = ReplyBin("code", "a")
    rates = rates_of((plain, 30, 10), (plain._replace(signals=(ABORTED,)), 20, 20), (ReplyBin("facts", "b"), 9, 1))
    assert rates.keeping({ABORTED}) == rates
    assert rates.keeping(()) == rates_of((plain, 50, 30), (ReplyBin("facts", "b"), 9, 1))


def test_a_bin_that_never_replies_has_a_bounded_weight():
    silent = ReplyBin("facts", "a")
    rates = rates_of((ReplyBin("code", "a"), 1000, 900), (silent, 100_000, 0))
    assert rates.weight(silent) == MAX_REPLY_WEIGHT
    assert ReplyRates().weight(silent) == MAX_REPLY_WEIGHT


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(1, 60), st.floats(0, 1)),
        min_size=1,
        max_size=6,
    )
)
def test_propensities_are_probabilities_and_weights_positive(cells):
    bins = [(ReplyBin(category, expert), n, round(n * share)) for category, expert, n, share in cells]
    rates = rates_of(*bins)
    for reply_bin, _, _ in bins:
        assert 0 <= rates.propensity(reply_bin) <= 1
        assert 0 <= rates.weight(reply_bin) <= MAX_REPLY_WEIGHT


def simulate(rng: np.random.Generator, n: int = 4000):
    """Answers whose reply rate depends on category, expert and signal, as do their rewards; the truth is the mean of
    all of them."""
    category, expert = rng.integers(2, size=n), rng.integers(2, size=n)
    is_liked = rng.random(n) < np.array([[0.9, 0.8], [0.5, 0.3]])[category, expert]
    has_signal = rng.random(n) < np.where(is_liked, 0.05, 0.4)
    rate = np.array([[0.05, 0.1], [0.3, 0.2]])[category, expert] + 0.3 * has_signal
    return category, expert, has_signal, is_liked.astype(np.float64), rng.random(n) < rate


def corrected(category, expert, has_signal, reward, replied):
    bins = [
        ReplyBin(str(c), str(e), (ABORTED,) if s else ()) for c, e, s in zip(category, expert, has_signal, strict=True)
    ]
    rates = ReplyRates()
    for reply_bin, has_reply in zip(bins, replied, strict=True):
        rates.count(reply_bin, 1, int(has_reply))
    weights = np.array([rates.weight(bins[i]) for i in np.flatnonzero(replied)])
    return np.average(reward[replied], weights=weights), reward[replied].mean()


def test_the_corrected_mean_finds_the_truth_where_the_raw_one_does_not():
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(60):
        answers = simulate(rng)
        errors.append(np.array(corrected(*answers)) - answers[3].mean())
    error, raw_error = np.mean(errors, axis=0)
    assert abs(error) < 0.015
    assert raw_error < -0.12  # the annoyed reply more


def test_agreement_has_agresti_and_caffos_interval():
    # 7 of 10 against 2 of 10: 8/12 - 3/12 +- 1.959964 sqrt((2/3 * 1/3 + 1/4 * 3/4) / 12) = 0.416667 +- 0.362162
    found = difference(np.repeat([1.0, 0.0], [7, 3]), np.repeat([1.0, 0.0], [2, 8]))
    assert found.value == pytest.approx(0.5)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.054505, 0.778828), abs=1e-5)


@pytest.mark.parametrize(
    ("liked_with", "liked_without", "verdict"),
    [
        (np.zeros(40), np.ones(40), "agrees"),
        (np.zeros(19), np.ones(400), "needs 20 answers with feedback on either side"),
        (np.repeat([0.0, 1.0], [15, 25]), np.repeat([0.0, 1.0], [10, 30]), "not surely worse by more than 0.1"),
        (np.ones(40), np.zeros(40), "not surely worse by more than 0.1"),
        (np.zeros(0), np.ones(40), "needs 20 answers with feedback on either side"),
    ],
)
def test_a_signal_is_used_only_where_it_agrees(liked_with, liked_without, verdict):
    found = agreement(ABORTED, 50, liked_with, liked_without)
    assert found.verdict == verdict


def test_a_signal_without_meaning_rarely_passes_the_bar():
    rng = np.random.default_rng(1)
    passed = 0
    for _ in range(300):
        rewards = (rng.random(400) < 0.6).astype(np.float64)
        has_signal = rng.random(400) < 0.2
        passed += agreement(REASKED, 80, rewards[has_signal], rewards[~has_signal]).verdict == "agrees"
    assert passed <= 3  # the bar lies above 0, so fewer than 2.5% of 300


def test_correlation_has_fishers_interval():
    x = np.tile([1.0, 1.0, 0.0, 0.0], 7)
    y = np.tile([1.0, 1.0, 1.0, 0.0], 7)
    found = correlation(x, y)
    r = np.sqrt(1 / 3)
    assert found.value == pytest.approx(r)
    assert found.interval.low == pytest.approx(np.tanh(np.arctanh(r) - 1.959964 / 5), abs=1e-6)
    assert (found.interval.high, found.n) == (pytest.approx(np.tanh(np.arctanh(r) + 1.959964 / 5), abs=1e-6), 28)
    assert correlation(x, np.ones(28)) is None
    assert correlation(x[:3], y[:3]) is None
    assert correlation(x, x).interval.high <= 1.0
