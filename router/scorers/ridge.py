"""Linear regression of every expert's score on the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from router.scorers._learned import require_measured
from router.scorers._linear import Linear
from router.types import CategoryProbs, ExpertScores, QueryBatch

LABEL = "Ridge regression"
HOW = "a linear function of the embedding per expert, fitted by least squares"


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    l2: float | None = Field(default=None, gt=0, description="None chooses it by leave-one-out")


@dataclass(frozen=True)
class RidgeScorer(Linear[Options]):
    """quality = x @ weights + bias; `weights` (d, m), `bias` (m,)."""

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        return measured.scores(self.value(batch), rows)


def build(options: Options) -> RidgeScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return RidgeScorer(options)


EXAMPLES = (Options(), Options(l2=0.1))
