"""Fits router.scorers.soft_ridge: a ridge regression of what the soft map leaves unexplained of each graded query."""

from __future__ import annotations

import numpy as np

from router.protocols import ArrayState
from router.scorers.soft_ridge import Options, sharpened_quality
from training.scored import ScoredQueries
from training.scorers.ridge import fit_linear


def fit(options: Options, data: ScoredQueries, rng: np.random.Generator) -> ArrayState:
    expected = sharpened_quality(data.probs.probs, data.evidence, options.sharpness)
    return fit_linear(data.embeddings, data.filled() - expected, options.l2)
