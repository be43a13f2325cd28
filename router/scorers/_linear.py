"""What scorers share that are linear in the embedding. Shapes: n queries, d dimensions, m experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

import numpy as np

from router.artifact import require_finite
from router.errors import ArtifactError
from router.protocols import ArrayState
from router.quality import QualityMatrix
from router.scorers._learned import NO_ARRAYS, Measured
from router.types import FloatArray, QueryBatch

Options = TypeVar("Options")


@dataclass(frozen=True)
class Linear(Generic[Options]):
    """`weights` (d, m) and `bias` (m,), beside what was measured."""

    options: Options
    measured: Measured | None = None
    weights: FloatArray | None = None
    bias: FloatArray | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> Self:
        return replace(self, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> Self:
        keep = np.asarray(columns, dtype=np.int64)
        weights = require_finite(state, "weights", (None, None))
        bias = require_finite(state, "bias", (weights.shape[1],))
        return replace(self, weights=weights[:, keep], bias=bias[keep])

    def value(self, batch: QueryBatch) -> FloatArray:
        """x @ weights + bias (n, m). Raises ArtifactError before `with_state`."""
        if self.weights is None or self.bias is None:
            raise ArtifactError(NO_ARRAYS)
        return np.asarray(batch.embeddings @ self.weights + self.bias, dtype=np.float32)
