"""The record of a routing report, as report.json holds it. Scores are in [0, 1]; an interval is [low, high] at 95%;
None means unknown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from eval.metrics.cheap_strong import CallOrder
from eval.metrics.intervals import Estimate, Range
from router.types import Record


class Arm(Record):
    """One way to choose an expert per query, measured on the test queries."""

    label: str
    how: str = Field(description="how it chooses, in one sentence")
    mean_score: float
    interval: Range
    mean_cost_usd: float | None = Field(description="USD per query")
    mean_active_params_b: float | None = Field(description="billions, per query")
    mean_calls: float = Field(default=1.0, description="experts asked per query")
    shares: dict[str, float] = Field(description="expert -> share of the queries, largest first; zeros left out")
    gap_closed: Estimate | None = Field(
        default=None, description="(this - best_single) / (query_oracle - best_single); None where there is no gap"
    )
    binding: tuple[str, ...] = Field(default=(), description="limits without which it would be better")
    gain: dict[str, Estimate] = Field(
        default_factory=dict,
        description="of a strategy, minus coe, best_single, and the best fixed mixtures of experts that spend as much: "
        "`equal_active_params_b`, `equal_cost_usd`",
    )


class MethodRecord(Arm):
    """A kind of scorer, fitted on the fit queries and measured on the test queries like every arm."""

    gain: dict[str, Estimate] = Field(description="this method minus coe, either best single, map_true, knn")
    is_default: bool = Field(description="reported as coe: chosen without the test queries, or named by `--method`")
    valid_score: float | None = Field(description="mean score on the queries that the default was chosen on")
    fit_s: float | None
    decide_us: float | None = Field(description="microseconds per query after the embedding")


class FrontierPoint(Record):
    """A choice under one budget, measured on the test queries."""

    budget: float
    amount: float = Field(
        description="mean per query on the test queries; for hosted parameters what is kept in memory"
    )
    mean_score: float
    interval: Range
    gain: Estimate | None = Field(
        description="minus the best fixed mixture that may spend the budget, or the amount if that is more; None for it"
    )
    shares: dict[str, float]


class ReliabilityPoint(Record):
    """The predictions within one bin."""

    predicted: float
    observed: float
    count: int


class Calibration(Record):
    """Predicted shares against what came true, in 15 bins of equal width."""

    n: int
    ece: float | None
    brier: float | None
    points: tuple[ReliabilityPoint, ...]


class Confusion(Record):
    """Queries of a true category (row) by most likely category (column); the largest categories and the others."""

    categories: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class CheapStrong(Record):
    """A weak and a strong expert; `orders` by method, with `random` and `oracle`."""

    weak: str
    strong: str
    weak_score: float
    strong_score: float
    oracle_score: float
    orders: dict[str, CallOrder]


class ThinCell(Record):
    """A cell of the quality matrix with too few graded answers."""

    category: str
    expert: str
    count: int
    missing: int


class CategoryFinding(Record):
    """A category whose queries go elsewhere than they should; `share` is the share that does."""

    category: str
    n: int
    share: float
    expert: str = Field(description="who serves that share")


class Diagnostics(Record):
    """Signs of collapse, degradation and underfitting (HoME, arXiv 2408.05430)."""

    routing_entropy: float = Field(description="of the experts' shares, 0 (one serves all) to 1 (all equal)")
    top_expert: str
    top_share: float
    rare: dict[str, float] = Field(description="experts that serve less than 1%")
    is_largest_always: bool | None = Field(description="more budget only ever buys the largest expert; None if unknown")
    degraded: tuple[CategoryFinding, ...] = Field(description="categories that mostly go to general")
    underused: tuple[CategoryFinding, ...] = Field(description="the map's expert is better but general serves more")
    needed_per_cell: int
    thin: tuple[ThinCell, ...] = Field(description="fewest answers first")
    n_thin: int


class LostQuery(Record):
    """A test query on which the router lost most."""

    prompt_id: str
    category: str
    likely_category: str
    excerpt: str
    chosen: str
    chosen_score: float
    best: str
    best_score: float


class CategoryRegret(Record):
    """Regret accounting on the queries of one true category."""

    category: str
    n: int
    values: dict[str, float]
    parts: dict[str, Estimate]
    total: Estimate


class Regret(Record):
    """query_oracle - served = beyond_categories + map + classifier + serving (ours)."""

    values: dict[str, float] = Field(
        description="mean score of query_oracle, category_oracle, map_true, router, served"
    )
    parts: dict[str, Estimate]
    total: Estimate
    by_category: tuple[CategoryRegret, ...]


class ExpertRow(Record):
    """One expert answering every test query."""

    expert: str
    fit_score: float
    mean_score: float
    interval: Range
    active_params_b: float | None
    mean_cost_usd: float | None
    share: float = Field(description="share of the test queries that the router sends it")


class CategoryRow(Record):
    """One true category of the test queries. `scores` has the arms' names."""

    category: str
    n_fit: int
    n_test: int
    expert: str = Field(description="what the learned map says")
    accuracy: float = Field(description="share whose most likely category is this one")
    fallback_share: float = Field(description="share sent to general")
    scores: dict[str, float]


class StageOne(Record):
    """The category classifier on the test queries."""

    n_categories: int
    accuracy: float = Field(description="the most likely category is the true one; before any fallback")
    coverage: float = Field(description="share not sent to general")
    error_when_sure: float | None = Field(description="misclassified share of those; None when all went to general")


class DataFacts(Record):
    """The data behind the figures."""

    source: str
    metric: str
    fit_metric: str = Field(default="", description="of the fit queries; it should be that of the test queries")
    method: str | None = Field(default=None, description="kind that `--method` named; None: chosen by validation")
    category_column: str
    has_one_category: bool = Field(default=False, description="none had enough prompts to be learned, so all are one")
    experts: tuple[str, ...]
    n_fit: int
    n_test: int
    splits: dict[str, int] = Field(description="prompts per split; empty where test rows have a table of their own")
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
    """The differences that the sample can show between the router and the best single expert. `smallest_shown`: the
    true difference of which the interval leaves out zero four times in five; `queries` would show one of `difference`
    so, None: not known."""

    smallest_shown: float
    difference: float
    queries: int | None


class UnseenStrategy(Record):
    """A strategy on all prompts, each played by what was learned without it."""

    mean_score: float
    over_best_single: Estimate
    over_hindsight: Estimate
    gap_closed: Estimate | None
    mean_calls: float
    mean_cost_usd: float | None
    mean_active_params_b: float | None


class OutOfFold(Record):
    """All prompts, each decided by a router that was fitted without it. `hindsight` is the best single expert of all,
    within the budgets; `gap_closed` is of the gap between that one and the query oracle."""

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
    strategies: dict[str, UnseenStrategy] = Field(default_factory=dict, description="where answers are known")
    used: list[float] = Field(description="mean amount over the limit, for each budget on an average")


class Report(Record):
    """All of report.json."""

    schema_version: Literal[1] = 1
    headline: str
    command: str
    seed: int
    created_at: str
    data: DataFacts
    arms: dict[str, Arm]
    gain: dict[str, Estimate] = Field(description="coe minus the named arm, per query")
    power: Power | None = Field(default=None, description="of `gain` over the best single expert")
    gap_closed: Estimate | None = Field(description="(coe - best_single) / (query_oracle - best_single)")
    regret: Regret
    stage_one: StageOne
    experts: tuple[ExpertRow, ...]
    categories: tuple[CategoryRow, ...]
    methods: dict[str, MethodRecord] = Field(default_factory=dict)
    frontier: dict[str, dict[str, tuple[FrontierPoint, ...]]] = Field(
        default_factory=dict, description="budget -> map, best_mixture or method -> points, budget rising"
    )
    calibration: dict[str, Calibration] = Field(
        default_factory=dict, description="category: confidence in it; a method: predicted against real scores"
    )
    confusion: Confusion | None = None
    cheap_strong: CheapStrong | None = None
    diagnostics: Diagnostics | None = None
    lost: tuple[LostQuery, ...] = ()
    out_of_fold: OutOfFold | None = None
    aiq: dict[str, Estimate] = Field(
        default_factory=dict, description="by method; `experts` is the hull of single ones"
    )
    hull: tuple[tuple[float, float], ...] = Field(default=(), description="(USD per query, mean score) of all choices")
    router_arena: dict[str, Estimate] = Field(default_factory=dict, description="by arm and method")
