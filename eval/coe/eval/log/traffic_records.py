"""The content of a traffic report's report.json. Quality is the mean of rewards in [0, 1]; intervals are 95% ones."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coe.base.money import money
from coe.decision_log.decision_record import ModelChange
from coe.eval.log.expert_worth import CompositionWorth
from coe.eval.log.feedback_report import FeedbackReport
from coe.eval.log.loop_worth import LoopWorth
from coe.eval.metrics.intervals import Rate
from coe.eval.report.numbers import milliseconds, percent
from coe.eval.report.page import InTable
from coe.router.types import Record


class Group(Record):
    """The decisions of one category or expert. Latencies are of answered decisions."""

    name: str
    n: Annotated[int, InTable("Decisions")]
    share: Annotated[float, InTable("Share", percent)]
    answered: Annotated[Rate | None, InTable("Answered", percent)]
    n_rated: Annotated[int, InTable("Rated")]
    quality: Annotated[Rate | None, InTable("Quality", percent)]
    cost_usd: Annotated[float, InTable("Cost", money)]
    p50_ms: Annotated[float | None, InTable("p50", milliseconds)]
    p95_ms: Annotated[float | None, InTable("p95", milliseconds)]
    ttft_p50_ms: Annotated[float | None, InTable("First byte", milliseconds)]
    tokens: int


class Cell(Record):
    """The decisions of a category that one expert served."""

    category: str
    expert: str
    n: int
    quality: Rate | None


class Bucket(Record):
    """The decisions of one period, by expert; `start` is in Unix seconds."""

    start: float
    by_expert: dict[str, int]
    quality: Rate | None


class Bias(Record):
    """The share of answers with feedback, and their mean reward as given and corrected. In the corrected mean each
    rated answer counts for the answers of its category and expert (inverse response propensity)."""

    rated: Rate | None
    raw: Rate | None
    corrected: Rate | None


class Totals(Record):
    """The whole of the traffic; `left_out` are rows of the log that are not traffic."""

    first_at: float
    last_at: float
    n: int
    left_out: dict[str, int]
    n_routed: int
    n_fallback: int
    by_state: dict[str, int]
    cost_usd: float
    p50_ms: float | None
    p95_ms: float | None


class LogReport(Record):
    """The content of report.json of `coe eval log`. `loop` is of the last 30 days."""

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
    bias: Bias
    model_changes: tuple[ModelChange, ...] = Field(default=(), description="of the models behind experts")
    feedback: FeedbackReport | None = None
    loop: LoopWorth | None = None
    worth: CompositionWorth | None = None
    worth_unknown: str = ""
