"""Fits router.classifiers.logistic with scikit-learn (L-BFGS)."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from coe.router.classifiers.logistic import Options
from coe.router.types import FloatArray, IntArray

GRID = (1.0, 3.0, 10.0, 30.0)
FOLDS = 3


def fit(
    options: Options, embeddings: FloatArray, labels: IntArray, n_categories: int
) -> dict[str, NDArray[np.generic]]:
    """Arrays of the classifier. Every one of the `n_categories` must occur in `labels` (n,)."""
    from sklearn.linear_model import LogisticRegression

    if n_categories == 1:
        return {"weights": np.zeros((embeddings.shape[1], 1), np.float32), "bias": np.zeros(1, np.float32)}
    strength = options.inverse_l2 or best_strength(embeddings, labels)
    model = LogisticRegression(C=strength, max_iter=1000, tol=1e-4).fit(embeddings, labels)
    weights, bias = model.coef_.T, model.intercept_
    if n_categories == 2:  # scikit-learn keeps one column for two classes
        weights, bias = np.hstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}


def choose(options: Options, embeddings: FloatArray, labels: IntArray) -> Options:
    """The options with what they leave open decided, so that fits on parts of the data need not decide again."""
    return Options(inverse_l2=options.inverse_l2 or best_strength(embeddings, labels))


def best_strength(embeddings: FloatArray, labels: IntArray) -> float:
    """C with the least cross-validated log loss; the middle of the grid when a category is too small to fold."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < FOLDS:
        return GRID[len(GRID) // 2]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    losses = {}
    for strength in GRID:
        model = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fold may stop at max_iter: good enough to compare strengths
            losses[strength] = -cross_val_score(model, embeddings, labels, cv=folds, scoring="neg_log_loss").mean()
    return min(losses, key=lambda strength: losses[strength])
