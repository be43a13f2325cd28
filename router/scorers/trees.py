"""Gradient-boosted trees on category probabilities, embedding projections and surface facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
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

IntArray = NDArray[np.int64]
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
class Forest:
    """Trees of t roots over v nodes. A leaf leads to itself, so that all trees can be walked for as many steps as the
    deepest needs.

    `feature`, `threshold` (v,) and `children` (2v,), where a query whose feature is at most the threshold goes to the
    second of a node's two; `value` (v,); `roots` (t,); `owner` (t, m) is 1 for the expert of the tree.
    """

    feature: IntArray
    threshold: FloatArray
    children: IntArray
    value: FloatArray
    roots: IntArray
    owner: FloatArray
    depth: int

    def sums(self, features: FloatArray) -> FloatArray:
        """(n, m) from features (n, f): the sum of the leaves that each query falls into, per expert."""
        n, width = features.shape
        flat, first = features.ravel(), np.arange(0, n * width, width)[:, None]
        place = np.broadcast_to(self.roots, (n, len(self.roots)))
        for _ in range(self.depth):
            goes_left = flat.take(first + self.feature.take(place)) <= self.threshold.take(place)
            place = self.children.take(2 * place + goes_left)
        return np.asarray(self.value.take(place) @ self.owner, dtype=np.float32)


def forest_of(state: ArrayState, columns: Sequence[int]) -> Forest:
    """The trees of the experts in `columns`, from arrays as `training.scorers.trees` makes them: `feature` (v,), LEAF
    at a leaf, `threshold`, `left`, `right`, `value` (v,), `roots` and `expert` (t,), `base` (m,).

    Raises:
        ArtifactError: an array is missing or of another shape, or a child does not come after its parent, as it must
            for every walk to end.
    """
    threshold = require_finite(state, "threshold", (None,))
    v = len(threshold)
    feature, left, right = (require_array(state, name, (v,)).astype(np.int64) for name in ("feature", "left", "right"))
    roots = require_array(state, "roots", (None,)).astype(np.int64)
    expert = require_array(state, "expert", (len(roots),)).astype(np.int64)
    itself, is_leaf = np.arange(v), feature == LEAF
    for child in (left, right):
        if ((child <= itself) | (child >= v))[~is_leaf].any():
            raise ArtifactError("a node of a tree leads back or nowhere")
    position = np.full(len(require_array(state, "base", (None,))), -1, dtype=np.int64)
    position[np.asarray(columns, dtype=np.int64)] = np.arange(len(columns))
    kept = position[expert] >= 0
    children = np.column_stack([np.where(is_leaf, itself, right), np.where(is_leaf, itself, left)]).ravel()
    return Forest(
        feature=np.maximum(feature, 0),
        threshold=threshold,
        children=children,
        value=require_finite(state, "value", (v,)),
        roots=roots[kept],
        owner=np.eye(len(columns), dtype=np.float32)[position[expert][kept]],
        depth=depth_of(roots[kept], children),
    )


def depth_of(roots: IntArray, children: IntArray) -> int:
    """Steps after which every walk from these roots stands at a leaf."""
    depth, level = 0, np.unique(roots)
    while True:
        below = np.unique(children.reshape(-1, 2)[level])
        below = below[~np.isin(below, level)]  # what a leaf leads to is itself
        if len(below) == 0:
            return depth
        depth, level = depth + 1, below


@dataclass(frozen=True)
class TreesScorer:
    """quality = base + sum of the leaves that a query falls into, over the trees of each expert.

    `projection` (d, p); `base` (m,).
    """

    options: Options
    measured: Measured | None = None
    projection: FloatArray | None = None
    forest: Forest | None = None
    base: FloatArray | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> TreesScorer:
        return replace(self, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> TreesScorer:
        return replace(
            self,
            projection=require_finite(state, "projection", (None, None)),
            forest=forest_of(state, columns),
            base=require_finite(state, "base", (None,))[np.asarray(columns, dtype=np.int64)],
        )

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        if self.projection is None or self.forest is None or self.base is None:
            raise ArtifactError(NO_ARRAYS)
        return measured.scores(self.base + self.forest.sums(tree_features(batch, probs, self.projection)), rows)


def build(options: Options) -> TreesScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return TreesScorer(options)


EXAMPLES = (Options(), Options(rounds=3, leaves=3, min_leaf=2, dimensions=2))
