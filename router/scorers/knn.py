"""The mean score on the nearest queries that were graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from base.errors import ArtifactError
from router.artifact import require_finite
from router.protocols import ArrayState
from router.quality import QualityMatrix
from router.scorers._learned import NO_ARRAYS, Measured, neighbour_means, projected, require_measured
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
    measured: Measured | None = None
    projection: FloatArray | None = None
    reference: FloatArray | None = None
    values: FloatArray | None = None
    observed: FloatArray | None = None
    mean: FloatArray | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> KnnScorer:
        return replace(self, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> KnnScorer:
        keep = np.asarray(columns, dtype=np.int64)
        projection = require_finite(state, "projection", (None, None))
        reference = require_finite(state, "reference", (None, projection.shape[1]))
        return replace(
            self,
            projection=projection,
            reference=reference,
            values=require_finite(state, "values", (len(reference), None))[:, keep],
            observed=require_finite(state, "observed", (len(reference), None))[:, keep],
            mean=require_finite(state, "mean", (None,))[keep],
        )

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        if self.projection is None or self.reference is None or self.values is None or self.observed is None:
            raise ArtifactError(NO_ARRAYS)
        if self.mean is None:
            raise ArtifactError(NO_ARRAYS)
        short = projected(batch.embeddings, self.projection)
        sums, weights = neighbour_means(short, self.reference, self.values, self.observed, self.options.neighbours)
        shrinkage = self.options.shrinkage
        return measured.scores((sums + shrinkage * self.mean) / (weights + shrinkage + 1e-9), rows)


def build(options: Options) -> KnnScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return KnnScorer(options)


EXAMPLES = (Options(), Options(neighbours=3, shrinkage=0.5, dimensions=2))
