"""The map of Composition of Experts: predicted quality depends on the decided category alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.protocols import ArrayState
from router.quality import QualityMatrix
from router.scorers._learned import Measured, require_measured
from router.types import CategoryProbs, ExpertScores, QueryBatch, Record

LABEL = "Category map"
HOW = "the best expert of the decided category, solved under the budgets (Composition of Experts)"


class Options(Record):
    """The map has no options: what it knows is measured."""


@dataclass(frozen=True)
class MapScorer:
    """quality[i, e] = w[c_i, e], the measured quality of e on the category decided for query i (CoE, 2412.01868)."""

    measured: Measured | None = None
    decides_by_query: bool = False

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> MapScorer:
        return MapScorer(Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> MapScorer:
        """The map has no arrays but its evidence."""
        return self

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        """`rows` (n,) is the decided category of each query as a row of the evidence."""
        measured = require_measured(self.measured)
        return measured.scores(measured.evidence.quality[np.asarray(rows, dtype=np.int64)], rows)


def build(options: Options) -> MapScorer:
    """An empty map; `with_evidence` fills it."""
    return MapScorer()


EXAMPLES = (Options(),)
