"""Estimates against worked values, and against the truth of a simulated log."""

import numpy as np
import pytest

from coe.router.types import Interval, Metric
from coe.training.off_policy import (
    bootstrap_sums,
    doubly_robust_terms,
    effective_sample_size,
    importance_weights,
    paired_means,
    weighted_mean,
    widened,
    with_interval,
)


def ips(weights, reward):
    """Value of one router by a model that predicts nothing, every row for one query."""
    return doubly_robust_terms(weights, reward, np.zeros(len(reward)), np.zeros(len(reward))).mean()


def test_reference_values():
    weights = importance_weights(np.array([1.0, 0.0, 0.5]), np.array([0.5, 0.5, 0.25]))
    reward = np.array([1.0, 1.0, 0.5])
    assert weights.tolist() == [2.0, 0.0, 2.0]
    assert ips(weights, reward) == pytest.approx(1.0)  # (2 + 0 + 1) / 3
    assert effective_sample_size(weights) == pytest.approx(2.0)  # 16 / 8
    assert effective_sample_size(weights / 100) == pytest.approx(2.0)
    terms = doubly_robust_terms(weights, reward, np.array([0.8, 0.8, 0.8]), np.array([0.6, 0.7, 0.9]))
    assert terms.tolist() == pytest.approx([1.0, 0.7, 0.3])


def test_a_candidate_that_never_agrees_has_no_sample():
    weights = importance_weights(np.zeros(5), np.full(5, 0.5))
    assert effective_sample_size(weights) == 0.0


def test_weights_are_clipped():
    assert importance_weights(np.array([1.0]), np.array([1e-6])).tolist() == [200.0]


def simulated_log(rng, n=4000):
    """Two experts, quality depends on a binary context; the log draws with 0.8 / 0.2."""
    context = rng.integers(0, 2, n)
    truth = np.array([[0.8, 0.3], [0.4, 0.7]])
    logged = (rng.random(n) < 0.2).astype(int)
    reward = (rng.random(n) < truth[context, logged]).astype(float)
    return context, truth, logged, reward, np.where(logged == 1, 0.2, 0.8)


def test_estimates_find_the_truth_of_a_policy_that_did_not_log():
    rng = np.random.default_rng(0)
    context, truth, logged, reward, propensity = simulated_log(rng)
    value = truth[[0, 1], [0, 1]].mean()  # the candidate plays the best expert of each context
    weights = importance_weights((logged == context).astype(float), propensity)
    wrong_model = np.full(len(reward), 0.5)
    dr = doubly_robust_terms(weights, reward, wrong_model, wrong_model)
    assert ips(weights, reward) == pytest.approx(value, abs=0.05)
    assert dr.mean() == pytest.approx(value, abs=0.05)
    assert abs(reward.mean() - value) > 0.1  # what averaging the log says is wrong


def test_a_right_model_makes_doubly_robust_sharper_than_ips():
    rng = np.random.default_rng(1)
    context, truth, logged, reward, propensity = simulated_log(rng)
    weights = importance_weights((logged == context).astype(float), propensity)
    dr = doubly_robust_terms(weights, reward, truth[context, logged], truth[context, context])
    assert dr.std() < (weights * reward).std()


def test_bootstrap_interval_covers_and_repeats():
    rng = np.random.default_rng(2)
    values = rng.random(400)
    columns = np.stack([np.ones(400), values], axis=1)
    (first,), (again,) = (
        bootstrap_sums(columns, np.arange(400), lambda sums: sums[..., 1:] / sums[..., :1], np.random.default_rng(3))
        for _ in range(2)
    )
    assert first == again
    assert first.interval.low < 0.5 < first.interval.high
    half_width = (first.interval.high - first.interval.low) / 2
    assert half_width == pytest.approx(1.96 * values.std() / 20, rel=0.15)


def test_estimates_agree_with_another_library():
    """The value of vw-estimators 0.2.2 (estimators.bandits.ips) on the same twelve rows."""
    propensity = np.array([0.2, 0.5, 0.58, 0.12, 0.22, 0.84, 0.16, 0.2, 0.86, 0.6, 0.4, 0.51])
    match = np.array([0.66, 0.28, 0.14, 0.79, 0.67, 0.51, 0.82, 0.55, 0.98, 0.2, 0.55, 0.48])
    reward = np.array([0.35, 0.59, 0.24, 0.8, 0.87, 0.13, 0.47, 0.28, 0.08, 0.9, 0.43, 0.15])
    weights = importance_weights(match, propensity)
    assert ips(weights, reward) == pytest.approx(1.1534009157007803)


def test_means_of_two_routers_come_with_their_difference():
    live, candidate = np.array([1.0, 1.0, 0.4]), np.array([1.0, 0.7, 0.3])

    def values(rows, weight):
        found = paired_means(live[rows], candidate[rows], weight, np.arange(len(rows)), np.random.default_rng(0))
        return [metric.value for metric in found]

    assert values(np.arange(3), np.ones(3)) == pytest.approx([0.8, 2 / 3, 2 / 3 - 0.8])
    doubled = values(np.arange(3), np.array([2.0, 1.0, 1.0]))
    twice = values(np.array([0, 0, 1, 2]), np.ones(4))
    assert doubled == pytest.approx(twice), "a row that stands for two is a row that is there twice"


def test_few_effective_rows_widen_an_interval_as_student_says():
    metric = Metric(value=0.5, interval=Interval(low=0.4, high=0.7), n=100)
    wide = widened(metric, 11.0, 0.0, 0.0).interval
    factor = 2.228 / 1.960 * (11 / 10) ** 0.5  # t and z tables, 10 degrees of freedom
    assert (0.5 - wide.low) / 0.1 == pytest.approx(factor, abs=1e-3)
    assert (wide.high - 0.5) / 0.2 == pytest.approx(factor, abs=1e-3)
    doubtful = widened(metric, 1e6, 0.1, 0.05).interval
    assert (doubtful.low, doubtful.high) == pytest.approx((0.3, 0.75), abs=1e-5)
    assert widened(metric, 2.0, 0.0, 0.0) == widened(metric, 3.0, 0.0, 0.0), "fewer than three are no sample at all"
    assert widened(Metric(value=0.5), 5.0, 0.1, 0.1) == Metric(value=0.5)


def test_draws_without_weight_are_left_out_of_an_interval():
    """Of two questions one has no weight: a quarter of the draws have none, and all the others say 0.6."""
    columns = np.array([[0.6, 1.0], [0.0, 0.0]])
    (some,) = bootstrap_sums(columns, np.arange(2), weighted_mean, np.random.default_rng(0))
    assert (some.value, some.interval.low, some.interval.high) == pytest.approx((0.6, 0.6, 0.6))
    (alone,) = bootstrap_sums(columns[:1], np.zeros(1, int), lambda sums: sums[..., :1], np.random.default_rng(0))
    assert (alone.interval.low, alone.interval.high) == (0.6, 0.6), "the only question is in every draw, once"
    (none,) = bootstrap_sums(0.0 * columns, np.arange(2), weighted_mean, np.random.default_rng(0))
    assert none.interval is None


def test_an_interval_holds_ninety_five_percent_of_the_draws_that_are_numbers():
    found = with_interval(0.5, np.append(np.arange(1001) / 1000, np.nan), 7)
    assert (found.interval.low, found.interval.high, found.n) == (pytest.approx(0.025), pytest.approx(0.975), 7)


def half_width(metric) -> float:
    return (metric.interval.high - metric.interval.low) / 2


def test_a_question_that_was_asked_often_counts_once():
    rng = np.random.default_rng(5)
    per_question = rng.random(200)
    columns = np.stack([np.repeat(per_question, 9), np.ones(1800)], axis=1)
    alone = bootstrap_sums(columns, np.arange(1800), weighted_mean, np.random.default_rng(6))[0]
    together = bootstrap_sums(columns, np.repeat(np.arange(200), 9), weighted_mean, np.random.default_rng(6))[0]
    assert [together.value, alone.value] == pytest.approx([per_question.mean()] * 2)
    assert half_width(together) == pytest.approx(1.96 * per_question.std() / np.sqrt(200), rel=0.1)
    assert half_width(together) == pytest.approx(3 * half_width(alone), rel=0.15)
