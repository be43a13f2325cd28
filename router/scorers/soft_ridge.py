"""The soft map, corrected by a linear function of the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from base.errors import ArtifactError
from router.artifact import require_finite
from router.protocols import ArrayState
from router.quality import QualityMatrix
from router.scorers._learned import NO_ARRAYS, Measured, require_measured
from router.scorers.soft_map import expected_quality
from router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch, Record

LABEL = "Soft map with ridge"
HOW = "expected quality over categories, corrected by a linear function of the embedding"


class Options(Record):
    l2: float | None = Field(default=None, gt=0, description="None chooses it by leave-one-out")
    sharpness: float = Field(default=2.0, gt=0, description="power of the probabilities; infinity would be the map")


def sharpened_quality(probs: FloatArray, evidence: QualityMatrix, sharpness: float) -> FloatArray:
    """Expected quality (n, m) under probabilities (n, k) that are raised to a power and sum to 1 again."""
    raised = (probs / probs.max(axis=1, keepdims=True)) ** np.float32(sharpness)
    return expected_quality(raised / raised.sum(axis=1, keepdims=True), evidence)


@dataclass(frozen=True)
class SoftRidgeScorer:
    """q(x, e) = sum_c p'(c|x) w[c, e] + x @ weights + bias, with p' proportional to p ** sharpness (ours).

    Where the embedding adds nothing to the categories, its strength is such that the correction vanishes.
    `weights` (d, m), `bias` (m,).
    """

    options: Options
    measured: Measured | None = None
    weights: FloatArray | None = None
    bias: FloatArray | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> SoftRidgeScorer:
        return replace(self, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> SoftRidgeScorer:
        keep = np.asarray(columns, dtype=np.int64)
        weights = require_finite(state, "weights", (None, None))
        bias = require_finite(state, "bias", (weights.shape[1],))
        return replace(self, weights=weights[:, keep], bias=bias[keep])

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        expected = sharpened_quality(probs.probs, measured.evidence, self.options.sharpness)
        if self.weights is None or self.bias is None:
            raise ArtifactError(NO_ARRAYS)
        return measured.scores(expected + batch.embeddings @ self.weights + self.bias, rows)


def build(options: Options) -> SoftRidgeScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return SoftRidgeScorer(options)


EXAMPLES = (Options(), Options(l2=0.1, sharpness=1.0))
