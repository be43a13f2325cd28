"""What the learned scorers share. Shapes: n queries, d dimensions, k categories, m experts, r reference queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.quality import QualityMatrix
from router.types import ExpertScores, FloatArray

NO_ARRAYS = "a learned scorer needs its arrays before it can score: fit it with `coe train`"
BLOCK_ROWS = 512
"""Rows whose similarities to all references are held at once."""


@dataclass(frozen=True)
class Measured:
    """The experts with what was measured of them per category."""

    experts: tuple[str, ...]
    evidence: QualityMatrix

    def scores(self, quality: FloatArray, rows: Sequence[int]) -> ExpertScores:
        """Predicted quality (n, m), with the standard errors of the decided categories."""
        index = np.asarray(rows, dtype=np.int64)
        return ExpertScores(self.experts, np.asarray(quality, dtype=np.float32), self.evidence.stderr[index])


def require_measured(measured: Measured | None) -> Measured:
    """Raises ValueError when a scorer was given no evidence yet."""
    if measured is None:
        raise ValueError("a scorer needs evidence before it can score")
    return measured


def projected(embeddings: FloatArray, projection: FloatArray) -> FloatArray:
    """Embeddings (n, d) in the p directions of `projection` (d, p), scaled to unit length."""
    short = embeddings @ projection
    norms = np.linalg.norm(short, axis=1, keepdims=True)
    return np.asarray(short / np.where(norms > 0, norms, 1.0), dtype=np.float32)


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
        nearest: NDArray[np.int64] = np.argpartition(similar, len(reference) - k, axis=1)[:, len(reference) - k :]
        near = np.maximum(np.take_along_axis(similar, nearest, axis=1), 0) + np.float32(1e-6)
        seen = observed[nearest]
        sums[start : start + BLOCK_ROWS] = np.einsum("nk,nkm->nm", near, values[nearest] * seen)
        weights[start : start + BLOCK_ROWS] = np.einsum("nk,nkm->nm", near, seen)
    return sums, weights


def sigmoid(values: NDArray[np.floating]) -> FloatArray:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)), dtype=np.float32)
