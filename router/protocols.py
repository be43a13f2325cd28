"""The seams: what an encoder, a classifier and a scorer must do. Plugins implement; nothing inherits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from router.quality import QualityMatrix
from router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch

ArrayState = Mapping[str, NDArray[np.generic]]
"""Learned arrays by name; what safetensors stores."""


@runtime_checkable
class Encoder(Protocol):
    """Texts to vectors."""

    @property
    def dim(self) -> int:
        """Dimensions d of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the vector space: hash of weights and every option that changes a vector."""
        ...

    @property
    def is_inline(self) -> bool:
        """Returns True when one short text takes well under a millisecond, so it may run on the event loop."""
        ...

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) float32 with L2-normalised rows; an empty text gives a zero row. A text's vector does not depend on
        its batch (within 1e-5).

        Raises:
            BackendError: a remote encoder did not answer.
        """
        ...


@runtime_checkable
class CategoryClassifier(Protocol):
    """Stage 1. Built unfitted from Options; `with_state` gives the fitted one."""

    @property
    def categories_(self) -> tuple[str, ...]:
        """The k categories in column order; empty when unfitted."""
        ...

    def with_state(self, categories: Sequence[str], state: ArrayState) -> Self:
        """The same classifier with learned arrays.

        Raises:
            ArtifactError: arrays are missing or of the wrong shape.
        """
        ...

    def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
        """Probabilities (n, k) before temperature calibration. Raises ArtifactError when unfitted."""
        ...


@runtime_checkable
class ExpertScorer(Protocol):
    """Stage 2: predicted quality of every expert on every query. Built empty; `with_evidence` and, for a kind that
    learns arrays of its own, `with_state` fill it."""

    @property
    def decides_by_query(self) -> bool:
        """Returns whether the expert of best predicted quality serves, rather than that of the category's map."""
        ...

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> Self:
        """The same scorer over m experts, the columns of `evidence`."""
        ...

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> Self:
        """The same scorer with its learned arrays, for the experts at `columns` of those it was fitted on.

        Raises:
            ArtifactError: arrays are missing or of the wrong shape.
        """
        ...

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        """Scores (n, m). `rows` (n,): the category decided for each query, as a row of the evidence. A linear kind may
        leave [0, 1] by extrapolation.

        Raises:
            ArtifactError: the arrays are missing.
        """
        ...
