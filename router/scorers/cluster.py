"""Avengers-Pro (2508.12631): queries are clustered, and experts are ranked in each cluster."""

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

LABEL = "Cluster router"
HOW = "mean score in the three nearest clusters of graded queries (Avengers-Pro)"


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    clusters: int = Field(default=64, ge=1, description="at most so many; never fewer than 20 queries a cluster")
    nearest: int = Field(default=3, ge=1)
    sharpness: float = Field(default=9.0, gt=0, description="weights are softmax(-sharpness * cosine distance)")


@dataclass(frozen=True)
class ClusterScorer:
    """quality[i, e]: mean over the nearest clusters. `centroids` (c, d) unit rows, `quality` (c, m)."""

    options: Options
    measured: Measured | None = None
    centroids: FloatArray | None = None
    quality: FloatArray | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> ClusterScorer:
        return replace(self, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> ClusterScorer:
        centroids = require_finite(state, "centroids", (None, None))
        quality = require_finite(state, "quality", (len(centroids), None))
        return replace(self, centroids=centroids, quality=quality[:, np.asarray(columns, dtype=np.int64)])

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        if self.centroids is None or self.quality is None:
            raise ArtifactError(NO_ARRAYS)
        similar = batch.embeddings @ self.centroids.T
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, : self.options.nearest]
        near = self.options.sharpness * np.take_along_axis(similar, nearest, axis=1)
        weights = np.exp(near - near.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return measured.scores(np.einsum("nc,ncm->nm", weights, self.quality[nearest]), rows)


def build(options: Options) -> ClusterScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return ClusterScorer(options)


EXAMPLES = (Options(), Options(clusters=2, nearest=1))
