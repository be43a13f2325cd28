"""Logistic regression of every expert's score on the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from router.scorers._learned import require_measured, sigmoid
from router.scorers._linear import Linear
from router.types import CategoryProbs, ExpertScores, QueryBatch

LABEL = "Logistic regression"
HOW = "the probability of a right answer per expert, linear in the embedding"


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    inverse_l2: float = Field(default=0.1, gt=0, description="C of scikit-learn")


@dataclass(frozen=True)
class LogisticScorer(Linear[Options]):
    """quality = sigmoid(x @ weights + bias); `weights` (d, m), `bias` (m,)."""

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        return measured.scores(sigmoid(self.value(batch)), rows)


def build(options: Options) -> LogisticScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it."""
    return LogisticScorer(options)


EXAMPLES = (Options(), Options(inverse_l2=10.0))
