"""What the sections of a report are made from.

Shapes: n test queries, s sample queries, k rows of the map, m experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eval.routing import baselines
from eval.routing.compare import Choice, Trial, active_params, choices, costs, costs_by_category, mean_costs
from router.quality import QualityMatrix, cautious_quality
from router.types import GENERAL

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

HINDSIGHT = ("category_oracle", "query_oracle", "map_true")
"""Choices that need what is not known when a query comes in."""


@dataclass(frozen=True)
class MethodOutput:
    """What one kind of scorer said about the test queries.

    `quality` (n, m) predicted scores, `chosen` (n,) expert numbers. `sample_quality` (s, m) predicted for queries that
    it was not fitted on, from which prices of budgets are found; None leaves its frontier out. `sample_rows` (s,) are
    their rows of the map; None where unknown, and what depends on the row then counts at its mean. `valid_score` is
    what the default was chosen by.
    """

    name: str
    label: str
    how: str
    quality: Float64Array
    chosen: IntArray
    sample_quality: Float64Array | None = None
    fit_s: float | None = None
    decide_us: float | None = None
    valid_score: float | None = None
    is_default: bool = False
    sample_rows: IntArray | None = None


@dataclass(frozen=True)
class MapEvidence:
    """What the map was solved from: `quality` and `count` (k, m), `mass` (k,), names of the rows, `general` last."""

    categories: tuple[str, ...]
    quality: Float64Array
    mass: Float64Array
    count: Float64Array


@dataclass(frozen=True)
class SectionInputs:
    """All that is measured on the test queries.

    `scores` and `cost_usd` (n, m), the latter NaN where unknown of an expert; `sizes_b` and `fit_cost_usd` (m,)
    likewise; `fit_means` (m,). `fit_cost_by_row` (k, m): as `fit_cost_usd`, by row of the map, None without one.
    `choices`: who answers, as probabilities (n, m), by names of the arms and `map_true`.
    `likely`, `served`, `confidence` and `is_fallback` (n,): the decided category before and after a fallback, and how
    sure it was. `chosen` (n,) the router's experts. `limits`: budgets to put on the frontier besides its own grid.
    """

    experts: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    texts: tuple[str, ...]
    categories: tuple[str, ...]
    scores: Float64Array
    cost_usd: Float64Array
    sizes_b: Float64Array
    fit_cost_usd: Float64Array
    fit_means: Float64Array
    choices: Mapping[str, Float64Array]
    likely: tuple[str, ...]
    served: tuple[str, ...]
    confidence: Float64Array
    is_fallback: NDArray[np.bool_]
    chosen: IntArray
    expert_of: Mapping[str, str]
    methods: tuple[MethodOutput, ...] = ()
    evidence: MapEvidence | None = None
    limits: Mapping[str, Sequence[float]] = field(default_factory=dict)
    fit_cost_by_row: Float64Array | None = None

    @property
    def default(self) -> MethodOutput | None:
        """The method that validation chose; None when none is marked."""
        return next((method for method in self.methods if method.is_default), None)


def map_evidence(
    matrix: QualityMatrix, categories: Sequence[str], experts: Sequence[str], wanted: Sequence[str]
) -> MapEvidence:
    """From a router's quality matrix (k + 1, m) with its k learned categories and the experts of its columns; the
    columns are put in the order of the `wanted` experts, those of the test table."""
    columns = [list(experts).index(name) for name in wanted]
    return MapEvidence(
        categories=(*categories, GENERAL),
        quality=cautious_quality(matrix)[:, columns].astype(np.float64),
        mass=matrix.mass.astype(np.float64),
        count=matrix.count[:, columns].astype(np.float64),
    )


def inputs_of(
    trial: Trial,
    methods: Sequence[MethodOutput] = (),
    evidence: MapEvidence | None = None,
    limits: Mapping[str, Sequence[float]] | None = None,
    arms: Sequence[Choice] | None = None,
) -> SectionInputs:
    """From a trial. Limits default to the trial's budgets, arms to `choices(trial)`."""
    test, decisions = trial.test, trial.decisions
    named = {arm.name: arm.probs for arm in (choices(trial) if arms is None else arms)}
    set_budgets = {name: [value] for name, value in trial.budgets.model_dump(exclude_none=True).items()}
    return SectionInputs(
        experts=test.experts,
        prompt_ids=test.prompt_ids,
        texts=test.texts,
        categories=test.categories,
        scores=test.scores.astype(np.float64),
        cost_usd=costs(test),
        sizes_b=active_params(test),
        fit_cost_usd=mean_costs(trial.fit),
        fit_means=trial.fit.scores.mean(axis=0, dtype=np.float64),
        choices=named | {"map_true": baselines.one_hot(trial.mapped, len(test.experts))},
        likely=tuple(decision.likely_category for decision in decisions),
        served=tuple(decision.category for decision in decisions),
        confidence=np.array([decision.confidence for decision in decisions], dtype=np.float64),
        is_fallback=np.array([decision.is_fallback for decision in decisions], dtype=bool),
        chosen=trial.decided,
        expert_of=trial.expert_of,
        methods=tuple(methods),
        evidence=evidence,
        limits=limits if limits is not None else set_budgets,
        fit_cost_by_row=None if evidence is None else costs_by_category(trial.fit, evidence.categories[:-1]),
    )
