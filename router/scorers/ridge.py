"""Linear regression of every expert's score on the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from router.artifact import require_finite
from router.errors import ArtifactError
from router.protocols import ArrayState
from router.quality import QualityMatrix
from router.scorers._learned import NO_ARRAYS, Measured, require_measured
from router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch

LABEL = "Ridge regression"
HOW = "a linear function of the embedding per expert, fitted by least squares"


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    l2: float | None = Field(default=None, gt=0, description="None chooses it by leave-one-out")


@dataclass(frozen=True)
class RidgeScorer:
    """quality = x @ weights + bias; `weights` (d, m), `bias` (m,)."""

    options: Options
    measured: Measured | None = None
    weights: FloatArray | None = None
    bias: FloatArray | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> RidgeScorer:
        return replace(self, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> RidgeScorer:
        keep = np.asarray(columns, dtype=np.int64)
        weights = require_finite(state, "weights", (None, None))
        bias = require_finite(state, "bias", (weights.shape[1],))
        return replace(self, weights=weights[:, keep], bias=bias[keep])

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        if self.weights is None or self.bias is None:
            raise ArtifactError(NO_ARRAYS)
        return measured.scores(batch.embeddings @ self.weights + self.bias, rows)


def build(options: Options) -> RidgeScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return RidgeScorer(options)


EXAMPLES = (Options(), Options(l2=0.1))
