"""Weights of votes."""

from __future__ import annotations

import numpy as np
import pytest

from coe.router.strategies.learned import with_bias
from coe.training.strategies.vote_fit import fit_votes, key_scores, posteriors, subsets, view_loss
from tests.training.strategies.known_answers import ballots


def test_experts_that_err_alike_share_a_weight() -> None:
    weights = fit_votes(ballots(4000), np.random.default_rng(0))[0]
    assert weights[0] + weights[1] == pytest.approx(weights[2], abs=0.35)
    assert weights[2] == pytest.approx(weights[3], abs=0.2)


def test_weights_of_independent_experts_are_those_of_naive_bayes() -> None:
    weights = fit_votes(ballots(8000, twins=False), np.random.default_rng(0))[0]
    naive = np.log(0.6 * 4 / 0.4)  # accuracy 0.6 over 5 options
    assert weights[:4] == pytest.approx([naive] * 4, abs=0.3)


def test_the_posterior_is_calibrated_on_other_prompts() -> None:
    weights = fit_votes(ballots(4000, twins=False), np.random.default_rng(0))
    other = ballots(4000, seed=7, twins=False)
    probs = posteriors(other.keys, with_bias(other.embeddings) @ weights.astype(np.float64))
    leader, right = probs.max(axis=1), key_scores(other.keys, other.scores)
    hit = right[np.arange(4000), probs.argmax(axis=1)]
    for low in (0.3, 0.5, 0.7, 0.9):
        inside = (leader >= low) & (leader < low + 0.2)
        if inside.sum() > 100:
            assert hit[inside].mean() == pytest.approx(leader[inside].mean(), abs=0.06)


def test_the_slope_is_that_of_the_loss() -> None:
    data = ballots(30)
    votes = np.random.default_rng(1).normal(size=(30, 5))
    for keys, target in subsets(data, np.random.default_rng(2)):
        slope = view_loss(keys, target, votes)[1]
        for i, j in ((0, 0), (3, 1), (7, 4)):
            step = np.zeros_like(votes)
            step[i, j] = 1e-5
            numeric = (view_loss(keys, target, votes + step)[0] - view_loss(keys, target, votes - step)[0]) / 2e-5
            assert slope[i, j] == pytest.approx(numeric, abs=1e-6)
