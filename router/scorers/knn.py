"""The mean score on the nearest queries that were graded. Shapes: n queries, d dimensions, m experts, r references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from router.artifact import require_finite
from router.features import unit_rows
from router.protocols import ArrayState, ScorerOf
from router.quality import Measured
from router.types import CategoryProbs, ExpertScores, FloatArray, IntArray, QueryBatch, Record

LABEL = "k-NN over outcomes"
HOW = "mean score on the nearest graded queries"

BLOCK_ROWS = 512
"""Rows whose similarities to all references are held at once."""

STRIDE = 32
"""References of which only the most similar is looked at first."""


class Options(Record):
    neighbours: int = Field(default=40, ge=1, description="as in Composition of Experts, whose vote is near 40")
    shrinkage: float = Field(default=5.0, ge=0, description="weight of the expert's mean, in neighbours")
    dimensions: int = Field(default=96, ge=2, description="principal directions in which queries are compared")


@dataclass(frozen=True)
class KnnScorer:
    """quality[i, e] = (sum_j a_j y[j, e] + s mu_e) / (sum_j a_j + s) over the k nearest j with e observed.

    `projection` (d, p), `reference` (r, p) unit rows, `values` and `observed` (r, m), `mean` (m,).
    """

    options: Options
    measured: Measured
    projection: FloatArray
    reference: FloatArray
    values: FloatArray
    observed: FloatArray
    mean: FloatArray
    decides_by_query: bool = True

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        short = projected(batch.embeddings, self.projection)
        sums, weights = neighbour_means(short, self.reference, self.values, self.observed, self.options.neighbours)
        shrinkage = self.options.shrinkage
        return self.measured.scores((sums + shrinkage * self.mean) / (weights + shrinkage + 1e-9), rows)


def projected(embeddings: FloatArray, projection: FloatArray) -> FloatArray:
    """Embeddings (n, d) in the p directions of `projection` (d, p), scaled to unit length."""
    return unit_rows(embeddings @ projection)


def neighbour_means(
    embeddings: FloatArray, reference: FloatArray, values: FloatArray, observed: FloatArray, k: int
) -> tuple[FloatArray, FloatArray]:
    """Weighted sums (n, m) of the k nearest references' values, and the sums of the weights.

    Weights are cosine similarities (at least 0); a reference counts for the experts it was observed for.

    Args:
        embeddings: (n, p) and `reference` (r, p), unit rows.
        values: (r, m), anything finite where not observed; `observed` (r, m) is 1 or 0.
    """
    k = min(k, len(reference))
    sums = np.empty((len(embeddings), values.shape[1]), dtype=np.float32)
    weights = np.empty_like(sums)
    for start in range(0, len(embeddings), BLOCK_ROWS):
        similar = embeddings[start : start + BLOCK_ROWS] @ reference.T
        nearest = largest(similar, k)
        near = np.maximum(np.take_along_axis(similar, nearest, axis=1), 0) + np.float32(1e-6)
        seen = observed[nearest]
        sums[start : start + BLOCK_ROWS] = np.einsum("nk,nkm->nm", near, values[nearest] * seen)
        weights[start : start + BLOCK_ROWS] = np.einsum("nk,nkm->nm", near, seen)
    return sums, weights


def largest(values: FloatArray, k: int) -> IntArray:
    """(n, k) the columns of each row's k largest values (n, r), in no order.

    A row is cut into groups, and the k-th largest of the groups' maxima is a floor that k values reach and few others
    do: five times as fast as `argpartition` of a row of 16,000.
    """
    columns = values.shape[1]
    groups = columns // STRIDE
    if groups < 2 * k:
        return np.argpartition(values, columns - k, axis=1)[:, columns - k :]
    maxima = values[:, : STRIDE * groups].reshape(len(values), STRIDE, groups).max(axis=1)
    floors = np.partition(maxima, groups - k, axis=1)[:, groups - k]
    found = np.empty((len(values), k), dtype=np.int64)
    for i, floor in enumerate(floors):
        candidates = np.flatnonzero(values[i] >= floor)
        found[i] = candidates[np.argpartition(values[i, candidates], len(candidates) - k)[len(candidates) - k :]]
    return found


def build(options: Options) -> ScorerOf:
    def filled(measured: Measured, state: ArrayState, columns: Sequence[int]) -> KnnScorer:
        keep = np.asarray(columns, dtype=np.int64)
        projection = require_finite(state, "projection", (None, None))
        reference = require_finite(state, "reference", (None, projection.shape[1]))
        return KnnScorer(
            options,
            measured,
            projection,
            reference,
            values=require_finite(state, "values", (len(reference), None))[:, keep],
            observed=require_finite(state, "observed", (len(reference), None))[:, keep],
            mean=require_finite(state, "mean", (None,))[keep],
        )

    return filled


EXAMPLES = (Options(), Options(neighbours=3, shrinkage=0.5, dimensions=2))
