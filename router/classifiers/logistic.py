"""Multinomial logistic regression on the embedding: p = softmax(x W + b)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import Field

from base.errors import ArtifactError
from router.artifact import require_finite
from router.protocols import ArrayState
from router.types import CategoryProbs, FloatArray, Record


class Options(Record):
    inverse_l2: float | None = Field(
        default=None, gt=0, description="scikit-learn's C; None chooses it by cross-validation when fitting"
    )


@dataclass(frozen=True)
class LogisticClassifier:
    """`weights` (d, k), `bias` (k,)."""

    categories_: tuple[str, ...] = ()
    weights: FloatArray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    bias: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    def with_state(self, categories: Sequence[str], state: ArrayState) -> LogisticClassifier:
        k = len(categories)
        weights = require_finite(state, "weights", (None, k))
        bias = require_finite(state, "bias", (k,))
        return replace(self, categories_=tuple(categories), weights=weights, bias=bias)

    def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
        if not self.categories_:
            raise ArtifactError("the classifier has no learned state")
        if embeddings.shape[1] != self.weights.shape[0]:
            raise ArtifactError(f"embeddings have {embeddings.shape[1]} dimensions; expected {self.weights.shape[0]}")
        logits = embeddings @ self.weights + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        return CategoryProbs(self.categories_, odds / odds.sum(axis=1, keepdims=True))


def build(options: Options) -> LogisticClassifier:
    """Unfitted; options matter only for fitting."""
    return LogisticClassifier()


EXAMPLES = (Options(), Options(inverse_l2=10.0))
