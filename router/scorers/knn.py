"""The mean score on the nearest queries that were graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from router.artifact import require_finite
from router.protocols import ArrayState, ScorerOf
from router.quality import Measured
from router.scorers._learned import neighbour_means, projected
from router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch, Record

LABEL = "k-NN over outcomes"
HOW = "mean score on the nearest graded queries"


class Options(Record):
    neighbours: int = Field(default=40, ge=1, description="as in Composition of Experts, whose vote is near 40")
    shrinkage: float = Field(default=5.0, ge=0, description="weight of the expert's mean, in neighbours")
    dimensions: int = Field(default=96, ge=2, description="principal directions in which queries are compared")


@dataclass(frozen=True)
class KnnScorer:
    """quality[i, e] = (sum_j a_j y[j, e] + s mu_e) / (sum_j a_j + s) over the k nearest j with e observed.

    `projection` (d, p), `reference` (r, p) unit rows, `values` and `observed` (r, m), `mean` (m,).
    """

    options: Options
    measured: Measured
    projection: FloatArray
    reference: FloatArray
    values: FloatArray
    observed: FloatArray
    mean: FloatArray
    decides_by_query: bool = True

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        short = projected(batch.embeddings, self.projection)
        sums, weights = neighbour_means(short, self.reference, self.values, self.observed, self.options.neighbours)
        shrinkage = self.options.shrinkage
        return self.measured.scores((sums + shrinkage * self.mean) / (weights + shrinkage + 1e-9), rows)


def build(options: Options) -> ScorerOf:
    def filled(measured: Measured, state: ArrayState, columns: Sequence[int]) -> KnnScorer:
        keep = np.asarray(columns, dtype=np.int64)
        projection = require_finite(state, "projection", (None, None))
        reference = require_finite(state, "reference", (None, projection.shape[1]))
        return KnnScorer(
            options,
            measured,
            projection,
            reference,
            values=require_finite(state, "values", (len(reference), None))[:, keep],
            observed=require_finite(state, "observed", (len(reference), None))[:, keep],
            mean=require_finite(state, "mean", (None,))[keep],
        )

    return filled


EXAMPLES = (Options(), Options(neighbours=3, shrinkage=0.5, dimensions=2))
