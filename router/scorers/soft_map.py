"""The map weighted by how likely each category is, so that a query between two categories is judged by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.protocols import ArrayState
from router.quality import QualityMatrix
from router.scorers._learned import Measured, require_measured
from router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch, Record

LABEL = "Soft map"
HOW = "expected quality over the predicted categories"


class Options(Record):
    """The soft map has no options: what it knows is measured."""


def expected_quality(probs: FloatArray, evidence: QualityMatrix) -> FloatArray:
    """sum_c p(c|x) w[c, e] (n, m); `probs` (n, k) over the learned categories, the first k rows of the evidence."""
    return np.asarray(probs @ evidence.quality[: probs.shape[1]], dtype=np.float32)


@dataclass(frozen=True)
class SoftMapScorer:
    """quality[i, e] = sum_c p(c|x_i) w[c, e] (ours, after DriftMoE's multi-hot targets, 2507.18464)."""

    measured: Measured | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> SoftMapScorer:
        return SoftMapScorer(Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> SoftMapScorer:
        """The soft map has no arrays but its evidence."""
        return self

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        return measured.scores(expected_quality(probs.probs, measured.evidence), rows)


def build(options: Options) -> SoftMapScorer:
    """An empty soft map; `with_evidence` fills it."""
    return SoftMapScorer()


EXAMPLES = (Options(),)
