"""Graded queries that scorers are fitted on. Shapes: n queries, d dimensions, k categories, m experts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from coe.router.quality import QualityMatrix
from coe.router.reading.normalise import normalised_text
from coe.router.types import BoolArray, CategoryProbs, FloatArray, IntArray, Query, QueryBatch
from coe.training.expert_map import measure_quality, row_numbers
from coe.training.types import OutcomeTable

FEW_QUERIES = 4000
FOLDS_OF_FEW, FOLDS_OF_MANY = 5, 3


@dataclass(frozen=True)
class GradedQueries:
    """Graded queries with stage 1's probabilities.

    `embeddings` (n, d); `probs` (n, k) are calibrated, by a classifier that was not fitted on the query itself. The
    scores (n, m) of `table` are NaN if an expert was not run.
    """

    table: OutcomeTable
    embeddings: FloatArray
    probs: CategoryProbs

    def take(self, keep: BoolArray) -> GradedQueries:
        """Select queries by a mask (n,)."""
        return replace(
            self,
            table=self.table.rows(keep),
            embeddings=self.embeddings[keep],
            probs=CategoryProbs(self.probs.categories, self.probs.probs[keep]),
        )

    @property
    def batch(self) -> QueryBatch:
        pairs = zip(self.table.prompt_ids, self.table.texts, strict=True)
        return QueryBatch(tuple(Query(name, text) for name, text in pairs), self.embeddings)

    @cached_property
    def folds(self) -> IntArray:
        """The fold numbers, of shape (n,); prompts of equal text stay together. All kinds of scorers share them, so
        that their predictions can be averaged."""
        numbers: dict[str, int] = {}
        pairs = zip(self.table.texts, self.table.prompt_ids, strict=True)
        asked = (normalised_text(text) or name for text, name in pairs)  # a log may keep vectors and no texts
        group = np.array([numbers.setdefault(name, len(numbers)) for name in asked])
        count = FOLDS_OF_FEW if len(group) < FEW_QUERIES else FOLDS_OF_MANY
        return np.asarray(np.random.default_rng(0).permutation(len(numbers))[group] % count, dtype=np.int64)

    @property
    def rows(self) -> IntArray:
        """The row of each query's own category, of shape (n,); k for `general`."""
        return row_numbers(self.table, self.probs.categories)

    @property
    def decided(self) -> list[int]:
        """The most likely category of each query, of shape (n,)."""
        return [int(row) for row in self.probs.probs.argmax(axis=1)]

    @property
    def evidence(self) -> QualityMatrix:
        """The measured quality of every expert on every category, of shape (k+1, m)."""
        return measure_quality(self.table, self.probs.categories)
