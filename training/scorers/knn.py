"""Fits router.scorers.knn: the graded queries themselves, in fewer directions."""

from __future__ import annotations

import numpy as np

from router.protocols import ArrayState
from router.scorers.knn import Options, projected
from training.graded_queries import GradedQueries, principal_directions, reference_rows


def fit(options: Options, data: GradedQueries, rng: np.random.Generator) -> ArrayState:
    projection = principal_directions(data.embeddings, options.dimensions)
    rows = reference_rows(len(data.embeddings), rng)
    return {
        "projection": projection,
        "reference": projected(data.embeddings[rows], projection),
        "values": np.nan_to_num(data.table.scores)[rows],
        "observed": data.observed[rows],
        "mean": data.means(),
    }
