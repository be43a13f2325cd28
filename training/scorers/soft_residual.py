"""Fits router.scorers.soft_residual: what the soft map leaves unexplained of each graded query."""

from __future__ import annotations

import numpy as np

from router.protocols import ArrayState
from router.scorers._learned import projected
from router.scorers.soft_map import expected_quality
from router.scorers.soft_residual import Options
from training.scored import ScoredQueries, principal_directions, reference_rows


def fit(options: Options, data: ScoredQueries, rng: np.random.Generator) -> ArrayState:
    projection = principal_directions(data.embeddings, options.dimensions)
    expected = expected_quality(data.probs.probs, data.evidence)
    rows = reference_rows(len(data.embeddings), rng)
    return {
        "projection": projection,
        "reference": projected(data.embeddings[rows], projection),
        "residuals": np.nan_to_num(data.table.scores - expected)[rows],
        "observed": data.observed[rows],
    }
