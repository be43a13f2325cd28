"""The soft map, corrected by a linear function of the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from router.artifact import require_finite
from router.protocols import ArrayState, ScorerOf
from router.quality import Measured, QualityMatrix
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
    measured: Measured
    weights: FloatArray
    bias: FloatArray
    decides_by_query: bool = True

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        expected = sharpened_quality(probs.probs, self.measured.evidence, self.options.sharpness)
        return self.measured.scores(expected + batch.embeddings @ self.weights + self.bias, rows)


def build(options: Options) -> ScorerOf:
    def filled(measured: Measured, state: ArrayState, columns: Sequence[int]) -> SoftRidgeScorer:
        keep = np.asarray(columns, dtype=np.int64)
        weights = require_finite(state, "weights", (None, None))
        bias = require_finite(state, "bias", (weights.shape[1],))
        return SoftRidgeScorer(options, measured, weights[:, keep], bias[keep])

    return filled


EXAMPLES = (Options(), Options(l2=0.1, sharpness=1.0))
