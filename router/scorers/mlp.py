"""A small neural network from the embedding to every expert's score."""

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

LABEL = "Neural network"
HOW = "one hidden layer from the embedding to all experts' scores, trained on every right expert"


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: int = Field(default=64, ge=1)
    l2: float = Field(default=0.1, ge=0)
    networks: int = Field(default=3, ge=1, description="fitted from different starts and averaged")


@dataclass(frozen=True)
class MlpScorer:
    """quality = relu(x @ inner + inner_bias) @ outer + outer_bias.

    `inner` (d, h), `inner_bias` (h,), `outer` (h, m), `outer_bias` (m,), h over all networks.
    """

    options: Options
    measured: Measured | None = None
    inner: FloatArray | None = None
    inner_bias: FloatArray | None = None
    outer: FloatArray | None = None
    outer_bias: FloatArray | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> MlpScorer:
        return replace(self, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> MlpScorer:
        keep = np.asarray(columns, dtype=np.int64)
        inner = require_finite(state, "inner", (None, None))
        return replace(
            self,
            inner=inner,
            inner_bias=require_finite(state, "inner_bias", (inner.shape[1],)),
            outer=require_finite(state, "outer", (inner.shape[1], None))[:, keep],
            outer_bias=require_finite(state, "outer_bias", (None,))[keep],
        )

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        if self.inner is None or self.inner_bias is None or self.outer is None or self.outer_bias is None:
            raise ArtifactError(NO_ARRAYS)
        hidden = np.maximum(batch.embeddings @ self.inner + self.inner_bias, 0)
        return measured.scores(hidden @ self.outer + self.outer_bias, rows)


def build(options: Options) -> MlpScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return MlpScorer(options)


EXAMPLES = (Options(), Options(hidden=16, networks=2, l2=0.0))
