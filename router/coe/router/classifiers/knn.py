"""k nearest neighbours on the embedding, as in Composition of Experts (arXiv 2412.01868)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from coe.base.errors import ArtifactError
from coe.router.artifact import require_array, require_finite
from coe.router.protocols import ArrayState, ClassifierOf
from coe.router.types import CategoryProbs, FloatArray, IntArray, Record

SMOOTHING = 0.01
"""Vote that every category gets for nothing, so that no probability is 0 and calibration can take a logarithm."""


class Options(Record):
    neighbours: int = Field(default=40, ge=1)


@dataclass(frozen=True)
class KnnClassifier:
    """p(c) = (v_c + 0.01) / sum (v_c' + 0.01), v_c the share of category c in the votes of the nearest neighbours.

    A neighbour at cosine distance d votes with weight 1 / (d + 0.01): distance weights (Dudani 1976), where the term
    keeps a repeated query from deciding alone. `embeddings` (n, d) with unit rows, `labels` (n,).
    """

    neighbours: int
    categories_: tuple[str, ...]
    embeddings: FloatArray
    labels: IntArray

    def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
        if embeddings.shape[1] != self.embeddings.shape[1]:
            raise ArtifactError(
                f"embeddings have {embeddings.shape[1]} dimensions; expected {self.embeddings.shape[1]}"
            )
        cosine = embeddings @ self.embeddings.T
        count = min(self.neighbours, cosine.shape[1])
        nearest = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        weight = 1.0 / (1.0 - np.take_along_axis(cosine, nearest, axis=1).clip(-1.0, 1.0) + 0.01)
        weight /= weight.sum(axis=1, keepdims=True)
        votes = np.full((len(embeddings), len(self.categories_)), SMOOTHING, dtype=np.float32)
        np.add.at(votes, (np.arange(len(embeddings))[:, None], self.labels[nearest]), weight.astype(np.float32))
        return CategoryProbs(self.categories_, votes / votes.sum(axis=1, keepdims=True))


def build(options: Options) -> ClassifierOf:
    def fitted(categories: Sequence[str], state: ArrayState) -> KnnClassifier:
        embeddings = require_finite(state, "embeddings", (None, None))
        labels = np.asarray(require_array(state, "labels", (len(embeddings),)), dtype=np.int64)
        if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(categories):
            raise ArtifactError(f"array 'labels' must hold 0 to {len(categories) - 1} for {len(categories)} categories")
        return KnnClassifier(options.neighbours, tuple(categories), embeddings, labels)

    return fitted


def fit(
    options: Options, embeddings: FloatArray, labels: IntArray, n_categories: int
) -> dict[str, NDArray[np.generic]]:
    """Arrays of the classifier; float16 halves the artifact and moves a cosine by less than 1e-3."""
    return {"embeddings": embeddings.astype(np.float16), "labels": labels.astype(np.int64)}


EXAMPLES = (Options(), Options(neighbours=3))
