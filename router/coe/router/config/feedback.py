"""The parts of experts.yaml about what is said of answers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from coe.router.section import Section

DEFAULT_RUBRIC = "Is it right, complete, to the point, and in the form that was asked for?"


class FeedbackConfig(Section):
    """Limits and weights of feedback; docs/feedback.md."""

    max_per_hour: int = Field(default=1000, ge=1, description="pieces of one key in an hour; more get 429")
    key_weights: dict[str, Annotated[float, Field(ge=0, le=10)]] = Field(
        default_factory=dict, description="key id -> how much its feedback counts in training; 1 where not named"
    )
    max_key_share: ClassVar = 0.2  # of the evidence, which one key's feedback may be at most
    trusted_keys: tuple[str, ...] = Field(
        default=(), description="key ids that the limit does not hold for, and whose questions count one by one"
    )


class JudgeConfig(Section):
    """A second opinion on a sample of answers; docs/feedback.md."""

    expert: str = Field(description="expert that grades")
    rubric: str = Field(default=DEFAULT_RUBRIC, min_length=1, max_length=4000)
    queries: Literal["all", "uncertain"] = Field(
        default="all", description="routed requests to sample; uncertain: where a second draw names another expert"
    )
    share: float = Field(gt=0, le=1, description="of these requests")
    max_usd_per_day: float = Field(default=1.0, gt=0, description="list price of all that it asks, per gateway")
