"""Fits router.scorers.logistic with scikit-learn (L-BFGS), one model per expert."""

from __future__ import annotations

import warnings

import numpy as np

from router.protocols import ArrayState
from router.scorers.logistic import Options
from router.types import FloatArray
from training.scored import ScoredQueries

MAX_LOGIT = 6.0
"""Of an expert that was always right, or always wrong."""


def fit(options: Options, data: ScoredQueries, rng: np.random.Generator) -> ArrayState:
    columns = [fit_one(options, data.embeddings, data.table.scores[:, e]) for e in range(len(data.table.experts))]
    return {
        "weights": np.stack([weights for weights, _ in columns], axis=1).astype(np.float32),
        "bias": np.array([bias for _, bias in columns], dtype=np.float32),
    }


def fit_one(options: Options, embeddings: FloatArray, scores: FloatArray) -> tuple[FloatArray, float]:
    """A score between 0 and 1 counts as that share of a right answer and the rest of a wrong one."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    seen = np.isfinite(scores)
    right = scores[seen].astype(np.float64)
    if right.size == 0 or right.max() <= 0 or right.min() >= 1:
        constant = 0.0 if right.size == 0 else MAX_LOGIT if right.min() >= 1 else -MAX_LOGIT
        return np.zeros(embeddings.shape[1], dtype=np.float32), constant
    model = LogisticRegression(C=options.inverse_l2, max_iter=100, tol=1e-3)
    rows = np.concatenate([np.flatnonzero(seen & (scores > 0)), np.flatnonzero(seen & (scores < 1))])
    labels = np.concatenate([np.ones((right > 0).sum()), np.zeros((right < 1).sum())])
    weights = np.concatenate([right[right > 0], 1 - right[right < 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # good enough to rank experts
        model.fit(embeddings[rows], labels, sample_weight=weights)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])
