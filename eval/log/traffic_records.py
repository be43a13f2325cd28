"""All of a traffic report's report.json. Quality is the mean of rewards in [0, 1]; intervals are 95% ones."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from decision_log.served_models import ModelChange
from eval.log.expert_worth import CompositionWorth
from eval.log.loop_worth import LoopWorth
from eval.metrics.intervals import Gap, Rate
from router.types import Record
from training.category_mix import TrafficMix
from training.feedback_report import FeedbackReport


class Group(Record):
    """Traffic of one category or expert."""

    name: str
    n: int = Field(description="decisions")
    n_rated: int
    share: float = Field(description="of the decisions in this report")
    answered: Rate | None = Field(description="share that was answered")
    quality: Rate | None = Field(description="mean reward of the rated answers; None without feedback")
    cost_usd: float = Field(description="total")
    p50_ms: float | None = Field(description="median latency of the answered")
    p95_ms: float | None
    ttft_p50_ms: float | None
    tokens: int


class Cell(Record):
    """Decisions of a category that an expert served."""

    category: str
    expert: str
    n: int
    quality: Rate | None


class Bucket(Record):
    """Decisions of one stretch of time: by expert, and their mean reward."""

    start: float = Field(description="Unix seconds")
    by_expert: dict[str, int]
    quality: Rate | None


class CategoryRegret(Record):
    """Gain of the best expert of a category, in hindsight, over what was served; None: not known."""

    category: str
    n: int
    served: Rate | None
    best: str | None = Field(description="expert of highest estimated reward")
    regret: Gap | None
    unknown: str = Field(default="", description="why there is no estimate")


class Regret(Record):
    """Regret, estimated from the log's own rewards by propensities and two halves (`eval.log.category_regret`)."""

    total: Gap | None = Field(description="weighted by the traffic of the categories where it is known")
    coverage: float = Field(description="share of the routed traffic where it is known")
    is_explored: bool = Field(default=False, description="some choice was left to chance")
    n_explored: int = Field(default=0, description="answers of an expert that was drawn instead of the best one")
    categories: tuple[CategoryRegret, ...]
    given_up: float | None = Field(description="mean of best predicted minus predicted quality of the choice")
    explored: Rate | None = Field(description="reward of decisions drawn by exploration")
    exploited: Rate | None


class Prequential(Record):
    """Predictions made before the reward was known, compared with it (test, then train)."""

    n: int
    accuracy: Rate = Field(description="share where predicted and real reward lie on the same side of one half")
    error: float = Field(description="mean absolute difference")
    bias: float = Field(description="mean of reward minus prediction: negative where too much is promised")


class RatedShare(Record):
    """Share of the answers of a group that got feedback."""

    by: Literal["category", "expert", "latency"]
    name: str
    n: int
    rated: Rate


class Bias(Record):
    """Shares of answers with feedback, and the mean corrected for them."""

    rated: Rate | None
    groups: tuple[RatedShare, ...]
    raw: Rate | None = Field(description="mean reward of the rated answers")
    corrected: Rate | None = Field(
        description="every rated answer counts for the answers of its category and expert (inverse response propensity)"
    )


class Moved(Record):
    """Shares of a category's traffic by expert under two routers."""

    category: str
    n_before: int
    n_after: int
    before: dict[str, float]
    after: dict[str, float]
    quality: Gap | None


class Switch(Record):
    """A router version took over from another. Several may serve at once, as in a canary."""

    at: float
    before: str
    after: str
    policy: str = Field(description="what is compared was decided under it")
    n_before: int
    n_after: int
    n_overlap: int = Field(description="decisions of the old version after the first of the new one")
    quality_before: Rate | None
    quality_after: Rate | None
    quality: Gap | None
    moved: tuple[Moved, ...] = Field(description="categories whose usual expert differs, or whose shares moved most")


class RouterEvent(Record):
    """An event of a router version: promoted, canary, shadow, or withdrawn with the reason."""

    at: float
    version: str
    event: str
    detail: str


class Totals(Record):
    """The whole of the traffic in this report."""

    first_at: float
    last_at: float
    n: int
    n_probes: int = Field(default=0, description="asked by coe itself, not part of the traffic")
    n_malformed: int = Field(default=0, description="requests that no router could serve, not part of the traffic")
    n_capped: int = Field(default=0, description="refused by a cap of the key or team, not part of the traffic")
    n_routed: int
    n_fallback: int
    by_state: dict[str, int]
    cost_usd: float
    p50_ms: float | None
    p95_ms: float | None


class LogReport(Record):
    """All of report.json of `coe eval log`."""

    schema_version: Literal[1] = 1
    headline: str
    warnings: tuple[str, ...]
    command: str
    created_at: str
    totals: Totals
    categories: tuple[Group, ...]
    experts: tuple[Group, ...]
    cells: tuple[Cell, ...]
    timeline: tuple[Bucket, ...]
    bucket_s: float
    regret: Regret
    predictions: Prequential | None
    bias: Bias
    switches: tuple[Switch, ...]
    events: tuple[RouterEvent, ...] = Field(default=(), description="as the gateways saw them, oldest first")
    model_changes: tuple[ModelChange, ...] = Field(default=(), description="of the models behind experts")
    feedback: FeedbackReport | None = Field(default=None, description="what was said, and who agrees with it")
    loop: LoopWorth | None = Field(default=None, description="of the last 30 days; None without routers to compare")
    mix: TrafficMix | None = Field(default=None, description="of the newest decisions; None where it is not known")
    mix_unknown: str = Field(default="", description="why it is not")
    worth: CompositionWorth | None = Field(default=None, description="None where it is not known")
    worth_unknown: str = Field(default="", description="why it is not")
