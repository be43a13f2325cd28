"""The map of Composition of Experts: predicted quality depends on the decided category alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from router.quality import QualityMatrix
from router.types import CategoryProbs, ExpertScores, QueryBatch


class Options(BaseModel):
    """The map has no options: what it knows is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class MapScorer:
    """quality[i, e] = w[c_i, e], the measured quality of e on the category decided for query i (CoE, 2412.01868)."""

    experts: tuple[str, ...] = ()
    evidence: QualityMatrix | None = None

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> MapScorer:
        return MapScorer(tuple(experts), evidence)

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        """`rows` (n,) is the decided category of each query as a row of the evidence."""
        if self.evidence is None:
            raise ValueError("a scorer needs evidence before it can score")
        index = np.asarray(rows, dtype=np.int64)
        return ExpertScores(self.experts, self.evidence.quality[index], self.evidence.stderr[index])


def build(options: Options) -> MapScorer:
    """An empty map; `with_evidence` fills it."""
    return MapScorer()


EXAMPLES = (Options(),)
