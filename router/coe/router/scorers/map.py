"""The map of Composition of Experts: predicted quality depends on the decided category alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coe.router.protocols import ScorerOf
from coe.router.quality import Measured
from coe.router.types import CategoryProbs, ExpertScores, QueryBatch, Record

LABEL = "Category map"
HOW = "the best expert of the decided category, solved under the budgets (Composition of Experts)"


class Options(Record):
    """The map has no options: what it knows is measured."""


@dataclass(frozen=True)
class MapScorer:
    """quality[i, e] = w[c_i, e], the measured quality of e on the category decided for query i (CoE, 2412.01868)."""

    measured: Measured
    decides_by_query: bool = False

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        return self.measured.scores(self.measured.evidence.quality[np.asarray(rows, dtype=np.int64)], rows)


def build(options: Options) -> ScorerOf:
    """Build the map, which has no arrays but its evidence."""
    return lambda measured, state, columns: MapScorer(measured)


EXAMPLES = (Options(),)
