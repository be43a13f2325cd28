"""The seams: what an encoder, a classifier and a scorer must do. Plugins implement; nothing inherits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from coe.router.quality import Measured
from coe.router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch

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
        """Return float32 vectors of shape (n, d) with L2-normalized rows; an empty text gives a zero row. A text's
        vector does not depend on its batch (within 1e-5).

        Raises:
            BackendError: a remote encoder did not answer.
        """
        ...


@runtime_checkable
class CategoryClassifier(Protocol):
    """Stage 1, fitted."""

    @property
    def categories_(self) -> tuple[str, ...]:
        """The k categories in column order."""
        ...

    def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
        """Return probabilities of shape (n, k) before temperature calibration. It raises ArtifactError if the
        embeddings have another number of dimensions."""
        ...


ClassifierOf = Callable[[Sequence[str], ArrayState], CategoryClassifier]
"""The result of `build` of a kind of classifiers: makes the one of these categories from learned arrays. Raises
ArtifactError where arrays are missing or of the wrong shape."""


@runtime_checkable
class ExpertScorer(Protocol):
    """Stage 2: predicted quality of every expert on every query."""

    @property
    def measured(self) -> Measured:
        """Experts in the order of the scores, and what was measured of them by category."""
        ...

    @property
    def decides_by_query(self) -> bool:
        """True if the expert of best predicted quality serves, rather than that of the category's map."""
        ...

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        """Return scores of shape (n, m). A linear kind may leave [0, 1] by extrapolation.

        Args:
            rows: (n,) the category decided for each query, as a row of the evidence.
        """
        ...


ScorerOf = Callable[[Measured, ArrayState, Sequence[int]], ExpertScorer]
"""The result of `build` of a kind of scorers: it builds the scorer over measured experts. The learned arrays have these
experts in the given columns. It raises ArtifactError if arrays are missing or of the wrong shape."""
