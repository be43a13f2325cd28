"""Several kinds of scorers, averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from router import plugins
from router.errors import ArtifactError
from router.protocols import ArrayState, ExpertScorer
from router.quality import QualityMatrix
from router.scorers._learned import Measured, require_measured
from router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch

LABEL = "Stack"
HOW = "the mean of what several kinds predict"

FAMILY = "router.scorers"
USUAL_WEIGHT: Mapping[str, float] = {"soft_ridge": 2.0}
"""Of a kind that no weight was given for; others weigh 1 (training/LOG.md)."""


def usual_weights(kinds: Sequence[str]) -> tuple[float, ...]:
    return tuple(USUAL_WEIGHT.get(kind, 1.0) for kind in kinds)


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[str, ...] = Field(default=("soft_ridge", "soft_residual"), min_length=1)
    weights: tuple[float, ...] = Field(
        default_factory=lambda checked: usual_weights(checked.get("kinds", ())),
        description="one per kind; without any, soft_ridge weighs 2 and others 1",
    )

    @field_validator("kinds")
    @classmethod
    def refuse_itself(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if "stack" in kinds:
            raise ValueError("a stack cannot be a part of itself")
        return kinds

    @model_validator(mode="after")
    def refuse_odd_weights(self) -> Options:
        if len(self.weights) != len(self.kinds):
            raise ValueError(f"{len(self.weights)} weights for {len(self.kinds)} kinds; expected one for each, or none")
        if any(not 0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"weights are {list(self.weights)}; expected numbers of more than 0")
        return self

    def mean(self, parts: Sequence[FloatArray]) -> FloatArray:
        """The weighted mean (n, m) of what the kinds predict, in their order."""
        return np.average(parts, axis=0, weights=self.weights).astype(np.float32)


@dataclass(frozen=True)
class StackScorer:
    """quality = weighted mean over the parts of their predicted quality.

    The weights are the same for all data: fitted out of fold by non-negative least squares they chose no better on
    held-out queries, as is usual of combined forecasts (Clemen 1989; training/LOG.md has the figures).
    """

    options: Options
    parts: tuple[ExpertScorer, ...]
    measured: Measured | None = None
    decides_by_query: bool = True

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> StackScorer:
        parts = tuple(part.with_evidence(experts, evidence) for part in self.parts)
        return replace(self, parts=parts, measured=Measured(tuple(experts), evidence))

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> StackScorer:
        others = {name.partition(".")[0] for name in state} - set(self.options.kinds)
        if others:  # an artifact of before options were kept whole, when a stack had other kinds
            raise ArtifactError(
                f"the stack was trained of {', '.join(sorted(others))} and is expected to be of "
                f"{', '.join(self.options.kinds)}: run `coe train`"
            )
        arrays = [part_state(state, kind) for kind in self.options.kinds]
        parts = tuple(part.with_state(own, columns) for part, own in zip(self.parts, arrays, strict=True))
        return replace(self, parts=parts)

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        measured = require_measured(self.measured)
        quality = [part.score(batch, probs, rows).quality for part in self.parts]
        return measured.scores(self.options.mean(quality), rows)


def part_state(state: ArrayState, kind: str) -> ArrayState:
    """The arrays of one part, which are stored as `kind.name`."""
    return {name.partition(".")[2]: array for name, array in state.items() if name.partition(".")[0] == kind}


def inner(options: Options) -> tuple[plugins.Inner, ...]:
    return tuple(plugins.Inner("kinds", FAMILY, kind) for kind in options.kinds)


def build(options: Options) -> StackScorer:
    """An empty scorer; `with_evidence` and `with_state` fill it. Raises ConfigError on an unknown kind."""
    return StackScorer(options, tuple(plugins.build(FAMILY, kind, {}) for kind in options.kinds))


EXAMPLES = (Options(), Options(kinds=("soft_map", "ridge")))
