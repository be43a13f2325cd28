"""Fits router.scorers.mlp with scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np

from router.protocols import ArrayState
from router.scorers.mlp import Options
from training.scored import ScoredQueries

GAIN = 3.0
"""Targets are enlarged so that the common learning rate and l2 fit scores, whose spread is near a third."""

MAX_ITERATIONS = 40
MIN_QUERIES = 50
"""Fewer leave too little to stop early on."""


def fit(options: Options, data: ScoredQueries, rng: np.random.Generator) -> ArrayState:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    scores = data.filled()
    mean = scores.mean(axis=0)
    target = (scores - mean) * GAIN
    inner, inner_bias, outer, outer_bias = [], [], [], []
    for _ in range(options.networks):
        model = MLPRegressor(
            hidden_layer_sizes=(options.hidden,),
            alpha=options.l2,
            learning_rate_init=2e-3,
            max_iter=MAX_ITERATIONS,
            early_stopping=len(scores) >= MIN_QUERIES,
            random_state=int(rng.integers(2**31)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # iterations are bounded on purpose
            model.fit(data.embeddings, target if target.shape[1] > 1 else target[:, 0])
        inner.append(model.coefs_[0])
        inner_bias.append(model.intercepts_[0])
        outer.append(model.coefs_[1])
        outer_bias.append(model.intercepts_[1])
    share = GAIN * options.networks
    return {
        "inner": np.concatenate(inner, axis=1).astype(np.float32),
        "inner_bias": np.concatenate(inner_bias).astype(np.float32),
        "outer": (np.concatenate(outer, axis=0) / share).astype(np.float32),
        "outer_bias": (mean + np.sum(outer_bias, axis=0) / share).astype(np.float32),
    }
