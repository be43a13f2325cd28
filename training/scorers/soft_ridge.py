"""Fits router.scorers.soft_ridge: a ridge regression of what the soft map leaves unexplained of each graded query.

It is solved in closed form, its strength chosen by leave-one-out.
"""

from __future__ import annotations

import numpy as np

from router.protocols import ArrayState
from router.scorers.soft_ridge import Options, sharpened_quality
from router.types import Float64Array, FloatArray
from training.graded_queries import GradedQueries

GRID = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 1e9)
"""Strengths that are tried; the last leaves nothing but the means."""


def fit(options: Options, data: GradedQueries, rng: np.random.Generator) -> ArrayState:
    expected = sharpened_quality(data.probs.probs, data.evidence, options.sharpness)
    return fit_linear(data.embeddings, data.filled() - expected, options.l2)


def fit_linear(embeddings: FloatArray, scores: FloatArray, l2: float | None) -> ArrayState:
    """`weights` (d, m) and `bias` (m,) that predict scores (n, m) from embeddings (n, d); None chooses the strength."""
    mean, centre = scores.mean(axis=0, dtype=np.float64), embeddings.mean(axis=0, dtype=np.float64)
    inside = embeddings - centre.astype(np.float32)
    values, vectors = np.linalg.eigh((inside.T @ inside).astype(np.float64))
    values = np.maximum(values, 0.0)
    rotated = (inside @ vectors.astype(np.float32)).astype(np.float64)
    target = scores.astype(np.float64) - mean
    l2 = l2 or best_strength(values, rotated, target)
    weights = vectors @ ((rotated.T @ target) / (values + l2)[:, None])
    return {"weights": weights.astype(np.float32), "bias": (mean - centre @ weights).astype(np.float32)}


def best_strength(values: Float64Array, rotated: Float64Array, target: Float64Array) -> float:
    """The l2 whose leave-one-out predictions tell experts apart best: least squared error of the differences between
    experts, because what all have in common changes no choice.

    The leave-one-out residual of row i is residual_i / (1 - h_i), h the diagonal of the hat matrix (Allen 1974). One
    row's worth of leverage goes to the mean.
    """
    differences = target - target.mean(axis=1, keepdims=True)
    losses = {}
    for l2 in GRID:
        shrunk = rotated / (values + l2)
        leverage = np.minimum((rotated * shrunk).sum(axis=1) + 1.0 / len(rotated), 1 - 1e-9)
        residual = differences - shrunk @ (rotated.T @ differences)
        losses[l2] = float(((residual / (1 - leverage)[:, None]) ** 2).mean())
    return min(losses, key=lambda l2: losses[l2])
