"""RouteLLM's matrix factorisation (2406.18665) for m experts: a short query vector times a short expert vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from router.artifact import require_finite
from router.errors import ArtifactError
from router.protocols import ArrayState
from router.quality import QualityMatrix
from router.scorers._learned import NO_ARRAYS, Measured, require_measured, sigmoid
from router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch

LABEL = "Matrix factorisation"
HOW = "short query and expert vectors, fitted on who beats whom (RouteLLM)"


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1)
    l2: float = Field(default=30.0, ge=0)


@dataclass(frozen=True)
class MatrixFactorizationScorer:
    """quality = sigmoid((x @ projection + offset) @ experts^T + bias): differences of its logits are log odds of a win.

    `projection` (d, r), `offset` (r,), `vectors` (m, r), `bias` (m,).
    """

    options: Options
    measured: Measured | None = None
    projection: FloatArray | None = None
    offset: FloatArray | None = None
    vectors: FloatArray | None = None
    bias: FloatArray | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> MatrixFactorizationScorer:
        return replace(self, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> MatrixFactorizationScorer:
        keep = np.asarray(columns, dtype=np.int64)
        projection = require_finite(state, "projection", (None, None))
        rank = projection.shape[1]
        return replace(
            self,
            projection=projection,
            offset=require_finite(state, "offset", (rank,)),
            vectors=require_finite(state, "vectors", (None, rank))[keep],
            bias=require_finite(state, "bias", (None,))[keep],
        )

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        if self.projection is None or self.offset is None or self.vectors is None or self.bias is None:
            raise ArtifactError(NO_ARRAYS)
        short = batch.embeddings @ self.projection + self.offset
        return measured.scores(sigmoid(short @ self.vectors.T + self.bias), rows)


def build(options: Options) -> MatrixFactorizationScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return MatrixFactorizationScorer(options)


EXAMPLES = (Options(), Options(rank=2, l2=0.1))
