"""Several kinds of scorers, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from router import plugins
from router.protocols import ArrayState, ExpertScorer
from router.quality import QualityMatrix
from router.scorers._learned import Measured, require_measured
from router.types import CategoryProbs, ExpertScores, QueryBatch

LABEL = "Stack"
HOW = "the mean of what several kinds predict"

FAMILY = "router.scorers"


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[str, ...] = Field(default=("soft_map", "soft_residual", "ridge"), min_length=1)

    @field_validator("kinds")
    @classmethod
    def refuse_itself(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if "stack" in kinds:
            raise ValueError("a stack cannot be a part of itself")
        return kinds


@dataclass(frozen=True)
class StackScorer:
    """quality = mean over the parts of their predicted quality.

    Equal weights: weights fitted out of fold by non-negative least squares chose no better on held-out queries, as is
    usual of combined forecasts (Clemen 1989; training/LOG.md has the figures).
    """

    options: Options
    parts: tuple[ExpertScorer, ...]
    measured: Measured | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> StackScorer:
        parts = tuple(part.with_evidence(experts, evidence) for part in self.parts)
        return replace(self, parts=parts, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> StackScorer:
        arrays = [part_state(state, kind) for kind in self.options.kinds]
        parts = tuple(part.with_state(own, columns) for part, own in zip(self.parts, arrays, strict=True))
        return replace(self, parts=parts)

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        quality = [part.score(batch, probs, rows).quality for part in self.parts]
        return measured.scores(np.mean(quality, axis=0, dtype=np.float32), rows)


def part_state(state: ArrayState, kind: str) -> ArrayState:
    """The arrays of one part, which are stored as `kind.name`."""
    return {name.partition(".")[2]: array for name, array in state.items() if name.partition(".")[0] == kind}


def inner(options: Options) -> tuple[plugins.Inner, ...]:
    return tuple(plugins.Inner("kinds", FAMILY, kind) for kind in options.kinds)


def build(options: Options) -> StackScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it. Raises ConfigError on an unknown kind."""
    return StackScorer(options, tuple(plugins.build(FAMILY, kind, {}) for kind in options.kinds))


EXAMPLES = (Options(), Options(kinds=("soft_map", "ridge")))
