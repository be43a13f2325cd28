"""Weights of votes, fitted together by multinomial logistic regression. Shapes: n prompts, d dimensions, m experts.

An answer's utility is the sum of its voters' weights, which are linear in the embedding; that all are wrong is one more
outcome. It is McFadden's conditional logit with answers as alternatives: experts that err alike share a weight, where
naive Bayes would count them twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coe.router.strategies.learned import with_bias
from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray
from coe.training.types import NO_ANSWER

L2 = 10.0
"""Strength of the penalty on what the embedding adds (ours: of 3, 10 and 30 the best out of fold on both tables)."""

BIAS_L2 = 0.1
SUBSETS = 2
"""Times that each prompt is also seen with some of its answers only, because a posterior is needed after each reply."""

ROUNDS = 100


@dataclass(frozen=True)
class Ballots:
    """`keys` (n, m): number of each expert's answer among those of its prompt, -1 for none; `scores` (n, m) in [0, 1];
    `embeddings` (n, d)."""

    keys: IntArray
    scores: Float64Array
    embeddings: FloatArray

    def take(self, rows: BoolArray | IntArray) -> Ballots:
        return Ballots(self.keys[rows], self.scores[rows], self.embeddings[rows])


def key_scores(keys: IntArray, scores: Float64Array) -> Float64Array:
    """(n, m) mean score of the experts that gave answer a; 0 where nobody did."""
    given = keys[:, :, None] == np.arange(keys.shape[1])
    return np.asarray((given * scores[:, :, None]).sum(axis=1) / np.maximum(given.sum(axis=1), 1))


def posteriors(keys: IntArray, weights: Float64Array) -> Float64Array:
    """(n, m) probability of each answer under `weights` (n, m + 1), the last of which is the doubt; 0 where nobody gave
    it. The same as `Votes.posterior`."""
    return softmax(utilities(keys, weights))[:, :-1]


def utilities(keys: IntArray, weights: Float64Array) -> Float64Array:
    """(n, m + 1) of each answer, minus infinity where nobody gave it, and of none being right."""
    votes = keys[:, :, None] == np.arange(keys.shape[1])
    sums = (votes * weights[:, :-1, None]).sum(axis=1)
    return np.concatenate([np.where(votes.any(axis=1), sums, -np.inf), weights[:, -1:]], axis=1)


def softmax(utility: Float64Array) -> Float64Array:
    raised = np.exp(utility - utility.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def fit_votes(ballots: Ballots, rng: np.random.Generator) -> FloatArray:
    """(d + 1, m + 1) weights of the votes and, last, the doubt; the first row is the bias.

    Minimises the cross-entropy with the answers' scores, over each prompt and SUBSETS random subsets of its answers.
    """
    from scipy.optimize import minimize

    features = with_bias(ballots.embeddings).astype(np.float64)
    shape = (features.shape[1], ballots.keys.shape[1] + 1)
    penalty = np.full((shape[0], 1), L2)
    penalty[0] = BIAS_L2
    views = list(subsets(ballots, rng))

    def loss(flat: Float64Array) -> tuple[float, Float64Array]:
        weights = flat.reshape(shape)
        votes = features @ weights
        total, slope = 0.0, np.zeros_like(votes)
        for keys, target in views:
            value, part = view_loss(keys, target, votes)
            total, slope = total + value, slope + part
        gradient = features.T @ slope / len(views) + penalty * weights
        return total / len(views) + 0.5 * float((penalty * weights**2).sum()), gradient.ravel()

    start = np.zeros(shape[0] * shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ROUNDS})
    return np.asarray(found.x.reshape(shape), dtype=np.float32)


def subsets(ballots: Ballots, rng: np.random.Generator) -> Iterator[tuple[IntArray, Float64Array]]:
    """Keys (n, m) as some of the experts gave them, with the outcome (n, m + 1) to be predicted."""
    for view in range(1 + SUBSETS):
        share = rng.random((len(ballots.keys), 1)) if view else 1.0
        keys = np.where(rng.random(ballots.keys.shape) < share, ballots.keys, NO_ANSWER)
        right = key_scores(keys, ballots.scores)
        right /= np.maximum(right.sum(axis=1, keepdims=True), 1.0)
        yield keys, np.concatenate([right, 1 - right.sum(axis=1, keepdims=True)], axis=1)


def view_loss(keys: IntArray, target: Float64Array, votes: Float64Array) -> tuple[float, Float64Array]:
    """Cross-entropy and its slope by `votes` (n, m + 1)."""
    probs = softmax(utilities(keys, votes))
    slope = probs - target
    by_expert = np.take_along_axis(slope, np.where(keys >= 0, keys, len(slope[0]) - 1), axis=1)
    by_expert = np.where(keys >= 0, by_expert, 0.0)
    value = -float((target * np.log(np.maximum(probs, 1e-300))).sum())
    return value, np.concatenate([by_expert, slope[:, -1:]], axis=1)
