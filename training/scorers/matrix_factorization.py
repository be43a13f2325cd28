"""Fits router.scorers.matrix_factorization with scipy's L-BFGS on pairwise preferences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from router.protocols import ArrayState
from router.scorers.matrix_factorization import Options
from training.scored import ScoredQueries

MAX_ITERATIONS = 60
MAX_LOGIT = 6.0

Float64Array = NDArray[np.float64]


def fit(options: Options, data: ScoredQueries, rng: np.random.Generator) -> ArrayState:
    """Minimises sum over queries and pairs of experts of |y_a - y_b| log(1 + exp(-sign (s_a - s_b))), the Bradley-Terry
    loss of RouteLLM with the size of the difference as weight, plus l2 of all factors."""
    from scipy.optimize import minimize

    n, d = data.embeddings.shape
    m, rank = len(data.table.experts), options.rank
    scores, seen = np.nan_to_num(data.table.scores), data.observed
    start = np.concatenate(
        [rng.standard_normal(d * rank) * 0.1 / np.sqrt(d), np.zeros(rank), rng.standard_normal(m * rank) * 0.3]
    )
    centred = start_logits(data)

    def loss(flat: Float64Array) -> tuple[float, Float64Array]:
        projection, offset, vectors = unpack(flat, d, rank, m)
        short = data.embeddings @ projection + offset
        logits = short @ vectors.T + centred
        value, slope = pairwise_loss(logits, scores, seen)
        penalty = 0.5 * options.l2 * float(flat @ flat)
        into = slope @ vectors
        gradient = np.concatenate([(data.embeddings.T @ into).ravel(), into.sum(axis=0), (slope.T @ short).ravel()])
        return (value + penalty) / n, (gradient + options.l2 * flat) / n

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS})
    projection, offset, vectors = unpack(found.x, d, rank, m)
    return {
        "projection": projection.astype(np.float32),
        "offset": offset.astype(np.float32),
        "vectors": vectors.astype(np.float32),
        "bias": centred.astype(np.float32),
    }


def start_logits(data: ScoredQueries) -> Float64Array:
    """(m,) log odds of each expert's mean score: where nothing else is known, the best single expert wins."""
    means = np.clip(data.means().astype(np.float64), 1e-3, 1 - 1e-3)
    return np.asarray(np.clip(np.log(means / (1 - means)), -MAX_LOGIT, MAX_LOGIT))


def unpack(flat: Float64Array, d: int, rank: int, m: int) -> tuple[Float64Array, Float64Array, Float64Array]:
    cut = d * rank
    return flat[:cut].reshape(d, rank), flat[cut : cut + rank], flat[cut + rank :].reshape(m, rank)


def pairwise_loss(
    logits: Float64Array, scores: NDArray[np.floating], seen: NDArray[np.floating]
) -> tuple[float, Float64Array]:
    """The loss and its gradient (n, m) by the logits; pairs with an unseen score do not count."""
    value, slope = 0.0, np.zeros_like(logits)
    m = logits.shape[1]
    for a in range(m):
        for b in range(a + 1, m):
            lead = (scores[:, a] - scores[:, b]) * seen[:, a] * seen[:, b]
            sign, weight = np.sign(lead), np.abs(lead)
            margin = sign * (logits[:, a] - logits[:, b])
            value += float((weight * np.logaddexp(0.0, -margin)).sum())
            pull = -sign * weight * 0.5 * (1.0 - np.tanh(0.5 * margin))
            slope[:, a] += pull
            slope[:, b] -= pull
    return value, slope
