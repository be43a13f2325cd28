"""The record of a routing report, as stored in report.json. Scores are in [0, 1]; an interval is [low, high] at 95%;
None means unknown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coe.eval.metrics.intervals import Estimate, Range
from coe.fleet.certificate import Certificate
from coe.router.types import Record

Group = Literal["this router", "reference", "method", "strategy", "hindsight"]


class Scored(Record):
    """A mean score with its interval over the test queries."""

    mean_score: float
    interval: Range

    @property
    def score(self) -> Estimate:
        return Estimate(mean=self.mean_score, interval=self.interval)


class Arm(Scored):
    """A way to choose an expert per query, measured on the test queries."""

    label: str
    how: str = Field(description="how it chooses, in one sentence")
    group: Group
    mean_cost_usd: float | None = Field(description="USD per query")
    mean_active_params_b: float | None = Field(description="billions, per query")
    mean_calls: float = Field(default=1.0, description="experts asked per query")
    shares: dict[str, float] = Field(description="expert -> share of the queries, largest first; zeros left out")
    gap_closed: Estimate | None = Field(
        default=None, description="(this - best_single) / (query_oracle - best_single); None where there is no gap"
    )
    binding: tuple[str, ...] = Field(default=(), description="limits without which it would be better")
    gain: dict[str, Estimate] = Field(
        description="this minus coe, either best single, map_true, knn, and best_mixture where there is a budget"
    )


class FrontierPoint(Scored):
    """A choice under one budget, measured on the test queries."""

    budget: float
    amount: float = Field(
        description="mean per query on the test queries; for hosted parameters the sum over experts that serve any"
    )
    gain: Estimate | None = Field(
        description="minus the best fixed mixture that may spend the budget, or the amount if that is more; None for it"
    )


class ExpertRow(Scored):
    """An expert that answers every test query."""

    expert: str
    fit_score: float
    active_params_b: float | None
    mean_cost_usd: float | None
    share: float = Field(description="share of the test queries that the router sends it")


class CategoryRow(Record):
    """A true category of the test queries. `scores` has the arms' names, `experts` the experts'."""

    category: str
    n_fit: int
    n_test: int
    expert: str = Field(description="what the learned map says")
    accuracy: float = Field(description="share whose most likely category is this one")
    fallback_share: float = Field(description="share sent to general")
    scores: dict[str, float]
    experts: dict[str, float]


class StageOne(Record):
    """The category classifier on the test queries."""

    n_categories: int
    accuracy: float = Field(description="the most likely category is the true one; before any fallback")
    coverage: float = Field(description="share not sent to general")
    error_when_sure: float | None = Field(description="misclassified share of those; None when all went to general")
    calibration_error: float | None = Field(description="of the confidence in the most likely category")


class DataFacts(Record):
    """The data behind the figures."""

    source: str
    metric: str
    method: str = Field(description="kind of scorer that is reported as coe")
    has_one_category: bool = Field(default=False, description="none had enough prompts to be learned, so all are one")
    experts: tuple[str, ...]
    n_fit: int
    n_test: int
    splits: dict[str, int] = Field(description="prompts per split")
    n_overlap_removed: int = Field(description="fit prompts left out because the test set holds the same text")
    n_incomplete_removed: int = Field(description="prompts left out because some expert has no score there")
    fingerprints: dict[str, str]
    cost: Literal["recorded", "estimated", "unknown"] = Field(description="where it is known of any expert")
    cost_filled: float = Field(
        default=0.0, description="share of the test costs that are unknown and count as their expert's mean"
    )
    budgets: dict[str, float]
    encoder: str
    router_version: str


class Power(Record):
    """The differences between the router and the best single expert that the sample can show. `smallest_shown` is
    the true difference whose interval excludes zero four times in five. `queries` would show one of `difference` so;
    None if unknown."""

    smallest_shown: float
    difference: float
    queries: int | None


class AgreeOutOfFold(Record):
    """The strategy on all prompts. `asked` is the share of prompts for which each expert was asked."""

    score: float
    over_best_single: Estimate
    over_hindsight: Estimate
    asked: dict[str, float]


class OutOfFold(Record):
    """The result on all prompts, each decided by a router that was fitted without it. `hindsight` is the best single
    expert of all, within the budgets; `gap_closed` is of the gap between that one and the query oracle."""

    folds: int
    n: int
    coe: float
    best_single: float = Field(description="the best of the other folds")
    hindsight: str
    best_single_hindsight: float
    query_oracle: float
    over_best_single: Estimate
    over_hindsight: Estimate
    gap_closed: Estimate | None
    used: list[float] = Field(description="mean amount over the limit, for each budget on an average")
    agree: AgreeOutOfFold | None = None


class Report(Record):
    """The content of report.json."""

    schema_version: Literal[1] = 1
    headline: str
    command: str
    seed: int
    created_at: str
    data: DataFacts
    arms: dict[str, Arm]
    methods: dict[str, Arm] = Field(description="kind of scorer -> the router with it, fitted on the fit queries")
    power: Power = Field(description="of the gain of coe over the best single expert")
    stage_one: StageOne
    experts: tuple[ExpertRow, ...]
    categories: tuple[CategoryRow, ...]
    frontier: dict[str, dict[str, tuple[FrontierPoint, ...]]] = Field(
        description="budget -> coe or best_mixture -> points, budget rising; quality_floor: the cheapest plan"
    )
    out_of_fold: OutOfFold | None = None
    certificate: Certificate | None = Field(default=None, description="what the test queries show, not signed")
