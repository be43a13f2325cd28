"""What report.json holds. Scores are in [0, 1]; an interval is [low, high] at 95%; None means unknown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from router.types import Record

Range = tuple[float, float]


class Arm(Record):
    """One way to choose an expert per query, measured on the test queries."""

    label: str
    how: str = Field(description="how it chooses, in one sentence")
    mean_score: float
    interval: Range
    mean_cost_usd: float | None = Field(description="USD per query")
    mean_active_params_b: float | None = Field(description="billions, per query")
    shares: dict[str, float] = Field(description="expert -> share of the queries, largest first; zeros left out")


class Difference(Record):
    """A mean over queries of a difference between two choices, with its paired interval."""

    mean: float
    interval: Range


class CategoryRegret(Record):
    """Regret accounting on the queries of one true category."""

    category: str
    n: int
    values: dict[str, float]
    parts: dict[str, Difference]
    total: Difference


class Regret(Record):
    """query_oracle - served = beyond_categories + map + classifier + serving (ours)."""

    values: dict[str, float] = Field(
        description="mean score of query_oracle, category_oracle, map_true, router, served"
    )
    parts: dict[str, Difference]
    total: Difference
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
    """What was measured on what."""

    source: str
    metric: str
    category_column: str
    experts: tuple[str, ...]
    n_fit: int
    n_test: int
    splits: dict[str, int] = Field(description="prompts per split of the fitted table")
    n_overlap_removed: int = Field(description="fit prompts left out because the test set holds the same text")
    n_incomplete_removed: int = Field(description="prompts left out because some expert has no score there")
    fingerprints: dict[str, str]
    cost: Literal["recorded", "estimated", "unknown"]
    budgets: dict[str, float]
    encoder: str
    router_version: str


class Report(Record):
    """All of report.json."""

    schema_version: Literal[1] = 1
    headline: str
    command: str
    seed: int
    created_at: str
    data: DataFacts
    arms: dict[str, Arm]
    gain: dict[str, Difference] = Field(description="coe minus the named arm, per query")
    gap_closed: float | None = Field(description="(coe - best_single) / (query_oracle - best_single)")
    gap_closed_interval: Range | None
    regret: Regret
    stage_one: StageOne
    experts: tuple[ExpertRow, ...]
    categories: tuple[CategoryRow, ...]
