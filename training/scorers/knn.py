"""Fits router.scorers.knn: the graded queries themselves, in fewer directions."""

from __future__ import annotations

import numpy as np

from router.protocols import ArrayState
from router.scorers._learned import projected
from router.scorers.knn import Options
from training.scored import ScoredQueries, principal_directions


def fit(options: Options, data: ScoredQueries, rng: np.random.Generator) -> ArrayState:
    projection = principal_directions(data.embeddings, options.dimensions)
    return {
        "projection": projection,
        "reference": projected(data.embeddings, projection),
        "values": np.nan_to_num(data.table.scores),
        "observed": data.observed,
        "mean": data.means(),
    }
