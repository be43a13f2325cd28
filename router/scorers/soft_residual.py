"""The soft map, corrected by how the nearest graded queries did against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from router.artifact import require_finite
from router.errors import ArtifactError
from router.protocols import ArrayState
from router.quality import QualityMatrix
from router.scorers._learned import NO_ARRAYS, Measured, neighbour_means, projected, require_measured
from router.scorers.soft_map import expected_quality
from router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch

LABEL = "Soft map with residual"
HOW = "expected quality over categories, corrected by the nearest graded queries"


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: int = Field(default=40, ge=1)
    shrinkage: float = Field(default=20.0, ge=0, description="lambda: neighbours' weight that halves a correction")
    dimensions: int = Field(default=96, ge=2, description="principal directions in which queries are compared")


@dataclass(frozen=True)
class SoftResidualScorer:
    """q(x, e) = sum_c p(c|x) w[c, e] + sum_j a_j (y[j, e] - sum_c p(c|x_j) w[c, e]) / (sum_j a_j + lambda) (ours).

    `projection` (d, p), `reference` (r, p) unit rows, `residuals` and `observed` (r, m).
    """

    options: Options
    measured: Measured | None = None
    projection: FloatArray | None = None
    reference: FloatArray | None = None
    residuals: FloatArray | None = None
    observed: FloatArray | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> SoftResidualScorer:
        return replace(self, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> SoftResidualScorer:
        keep = np.asarray(columns, dtype=np.int64)
        projection = require_finite(state, "projection", (None, None))
        reference = require_finite(state, "reference", (None, projection.shape[1]))
        return replace(
            self,
            projection=projection,
            reference=reference,
            residuals=require_finite(state, "residuals", (len(reference), None))[:, keep],
            observed=require_finite(state, "observed", (len(reference), None))[:, keep],
        )

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        if self.projection is None or self.reference is None or self.residuals is None or self.observed is None:
            raise ArtifactError(NO_ARRAYS)
        short = projected(batch.embeddings, self.projection)
        sums, weights = neighbour_means(short, self.reference, self.residuals, self.observed, self.options.neighbours)
        correction = sums / (weights + self.options.shrinkage + 1e-9)
        return measured.scores(expected_quality(probs.probs, measured.evidence) + correction, rows)


def build(options: Options) -> SoftResidualScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return SoftResidualScorer(options)


EXAMPLES = (Options(), Options(neighbours=3, dimensions=2))
