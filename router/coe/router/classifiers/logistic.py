"""Multinomial logistic regression on the embedding: p = softmax(x W + b)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from coe.base.errors import ArtifactError
from coe.router.artifact import require_finite
from coe.router.protocols import ArrayState, ClassifierOf
from coe.router.types import CategoryProbs, FloatArray, Record


class Options(Record):
    inverse_l2: float | None = Field(
        default=None, gt=0, description="scikit-learn's C; None chooses it by cross-validation when fitting"
    )


@dataclass(frozen=True)
class LogisticClassifier:
    """`weights` (d, k), `bias` (k,)."""

    categories_: tuple[str, ...]
    weights: FloatArray
    bias: FloatArray

    def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
        if embeddings.shape[1] != self.weights.shape[0]:
            raise ArtifactError(f"embeddings have {embeddings.shape[1]} dimensions; expected {self.weights.shape[0]}")
        probs = embeddings @ self.weights
        probs += self.bias
        probs -= np.maximum.reduce(probs, axis=1, keepdims=True)  # the methods call these, by way of Python
        np.exp(probs, out=probs)
        probs /= np.add.reduce(probs, axis=1, keepdims=True)
        return CategoryProbs(self.categories_, probs)


def build(options: Options) -> ClassifierOf:
    """Options matter only for fitting."""

    def fitted(categories: Sequence[str], state: ArrayState) -> LogisticClassifier:
        weights = require_finite(state, "weights", (None, len(categories)))
        return LogisticClassifier(tuple(categories), weights, require_finite(state, "bias", (len(categories),)))

    return fitted


EXAMPLES = (Options(), Options(inverse_l2=10.0))
