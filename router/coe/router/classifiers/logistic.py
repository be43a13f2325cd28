"""Multinomial logistic regression on the embedding: p = softmax(x W + b)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from coe.base.errors import ArtifactError
from coe.router.model_files.artifact import require_finite
from coe.router.protocols import ArrayState, ClassifierOf
from coe.router.types import CategoryProbs, FloatArray, IntArray, Record


class Options(Record):
    inverse_l2: float | None = Field(
        default=None, gt=0, description="scikit-learn's C; None chooses it by cross-validation when fitting"
    )


@dataclass(frozen=True)
class LogisticClassifier:
    """`weights` (d, k), `bias` (k,)."""

    categories_: tuple[str, ...]
    weights: FloatArray
    bias: FloatArray

    def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
        if embeddings.shape[1] != self.weights.shape[0]:
            raise ArtifactError(f"embeddings have {embeddings.shape[1]} dimensions; expected {self.weights.shape[0]}")
        probs = embeddings @ self.weights
        probs += self.bias
        probs -= np.maximum.reduce(probs, axis=1, keepdims=True)  # the methods call these, by way of Python
        np.exp(probs, out=probs)
        probs /= np.add.reduce(probs, axis=1, keepdims=True)
        return CategoryProbs(self.categories_, probs)


def build(options: Options) -> ClassifierOf:
    """Build the classifier from fitted arrays; options matter only for fitting."""

    def fitted(categories: Sequence[str], state: ArrayState) -> LogisticClassifier:
        weights = require_finite(state, "weights", (None, len(categories)))
        return LogisticClassifier(tuple(categories), weights, require_finite(state, "bias", (len(categories),)))

    return fitted


GRID = (1.0, 3.0, 10.0, 30.0)
FOLDS = 3


def fit(
    options: Options, embeddings: FloatArray, labels: IntArray, n_categories: int
) -> dict[str, NDArray[np.generic]]:
    """Fit the arrays of the classifier. Each of the `n_categories` must occur in `labels`, of shape (n,)."""
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
    """Return the options with open ones decided, so that fits on parts of the data need not decide again."""
    return Options(inverse_l2=options.inverse_l2 or best_strength(embeddings, labels))


def best_strength(embeddings: FloatArray, labels: IntArray) -> float:
    """Return the C of the lowest cross-validated log loss; the middle of the grid if a category cannot be folded."""
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


EXAMPLES = (Options(), Options(inverse_l2=10.0))
