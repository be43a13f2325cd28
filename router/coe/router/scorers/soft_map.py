"""The map weighted by how likely each category is, so that a query between two categories is judged by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coe.router.protocols import ScorerOf
from coe.router.quality import Measured, QualityMatrix
from coe.router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch, Record

LABEL = "Soft map"
HOW = "expected quality over the predicted categories"


class Options(Record):
    """The soft map has no options: what it knows is measured."""


def expected_quality(probs: FloatArray, evidence: QualityMatrix) -> FloatArray:
    """Return sum_c p(c|x) w[c, e], (n, m).

    Args:
        probs: (n, k) over the learned categories, the first k rows of the evidence.
    """
    return np.asarray(probs @ evidence.quality[: probs.shape[1]], dtype=np.float32)


@dataclass(frozen=True)
class SoftMapScorer:
    """quality[i, e] = sum_c p(c|x_i) w[c, e] (ours, after DriftMoE's multi-hot targets, 2507.18464)."""

    measured: Measured
    decides_by_query: bool = True

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        return self.measured.scores(expected_quality(probs.probs, self.measured.evidence), rows)


def build(options: Options) -> ScorerOf:
    """Build the soft map, which has no arrays but its evidence."""
    return lambda measured, state, columns: SoftMapScorer(measured)


EXAMPLES = (Options(),)
