"""Code of all learned scorers. Shapes: n queries, d dimensions, k categories, m experts, r reference queries."""

from __future__ import annotations

import numpy as np

from router.features import unit_rows
from router.types import FloatArray, IntArray

BLOCK_ROWS = 512
"""Rows whose similarities to all references are held at once."""

STRIDE = 32
"""References of which only the most similar is looked at first."""


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
