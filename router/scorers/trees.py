"""Gradient-boosted trees on category probabilities, embedding projections and surface facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from router.artifact import require_array, require_finite
from router.errors import ArtifactError
from router.protocols import ArrayState
from router.quality import QualityMatrix
from router.scorers._learned import NO_ARRAYS, Measured, require_measured
from router.surface_facts import surface_facts
from router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch

LABEL = "Boosted trees"
HOW = "gradient-boosted trees on category probabilities, embedding projections and surface facts"

Float64Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
LEAF = -1


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(default=60, ge=1)
    learning_rate: float = Field(default=0.06, gt=0)
    leaves: int = Field(default=12, ge=2)
    min_leaf: int = Field(default=20, ge=1)
    l2: float = Field(default=5.0, ge=0)
    dimensions: int = Field(default=32, ge=1, description="principal directions of the embedding")


def tree_features(batch: QueryBatch, probs: CategoryProbs, projection: FloatArray) -> FloatArray:
    """(n, k + p + s): probabilities, projections (d, p) and surface facts."""
    facts = np.stack([surface_facts(query.text) for query in batch.queries])
    return np.concatenate([probs.probs, batch.embeddings @ projection, facts], axis=1, dtype=np.float32)


@dataclass(frozen=True)
class TreesScorer:
    """quality = base + sum of the leaves that a query falls into, over the trees of each expert.

    `projection` (d, p). Nodes of all trees (v,): `feature` (LEAF at a leaf), `threshold`, `left`, `right`, `value`.
    `roots` (t,) and `expert` (t,) per tree; `base` (m,).
    """

    options: Options
    measured: Measured | None = None
    projection: FloatArray | None = None
    nodes: ArrayState | None = None
    base: FloatArray | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> TreesScorer:
        return replace(self, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> TreesScorer:
        threshold = require_finite(state, "threshold", (None,))
        whole = {
            name: require_array(state, name, (len(threshold),)).astype(np.int64)
            for name in ("feature", "left", "right")
        }
        roots = require_array(state, "roots", (None,)).astype(np.int64)
        expert = require_array(state, "expert", (len(roots),)).astype(np.int64)
        base = require_finite(state, "base", (None,))
        position = np.full(len(base), -1, dtype=np.int64)
        position[np.asarray(columns, dtype=np.int64)] = np.arange(len(columns))
        kept = position[expert] >= 0
        nodes: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {
            **whole,
            "threshold": threshold,
            "value": require_finite(state, "value", (len(threshold),)),
            "roots": roots[kept],
            "expert": position[expert][kept],
        }
        return replace(
            self,
            projection=require_finite(state, "projection", (None, None)),
            nodes=nodes,
            base=base[np.asarray(columns, dtype=np.int64)],
        )

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        if self.projection is None or self.nodes is None or self.base is None:
            raise ArtifactError(NO_ARRAYS)
        features = tree_features(batch, probs, self.projection)
        return measured.scores(self.base + sum_of_leaves(features, self.nodes, len(self.base)), rows)


def sum_of_leaves(features: FloatArray, nodes: ArrayState, m: int) -> FloatArray:
    """(n, m): every tree is walked one level at a time for all queries at once."""
    feature, threshold, value = nodes["feature"], nodes["threshold"], nodes["value"]
    left, right = nodes["left"], nodes["right"]
    place = np.broadcast_to(nodes["roots"], (len(features), len(nodes["roots"]))).copy()
    index = np.arange(len(features))[:, None]
    while True:
        wanted = feature[place]
        inside = wanted != LEAF
        if not inside.any():
            break
        goes_left = features[index, np.maximum(wanted, 0)] <= threshold[place]
        place = np.where(inside, np.where(goes_left, left[place], right[place]), place)
    owner = np.eye(m, dtype=np.float32)[nodes["expert"]]
    return np.asarray(value[place] @ owner, dtype=np.float32)


def build(options: Options) -> TreesScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return TreesScorer(options)


EXAMPLES = (Options(), Options(rounds=3, leaves=3, min_leaf=2, dimensions=2))
