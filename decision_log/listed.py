"""Records of lists of decisions: what is asked for, a line, a page, and the spend of a key."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import Field

from router.request_body import ColumnText
from router.types import DecisionKind, DecisionReason, Record, TerminalState

Text = Annotated[ColumnText, Field(min_length=1, max_length=256)]


class Opinion(StrEnum):
    """Feedback on a decision, as a filter."""

    GOOD = "good"  # a value of 0.5 or more
    BAD = "bad"  # a value below
    ANY = "any"
    NONE = "none"


class Doubt(StrEnum):
    """Certainty of stage 1, as a filter."""

    SURE = "sure"
    UNSURE = "unsure"  # the decision fell back to `general`


class DecisionFilter(Record):
    """Conditions on decisions, all of which must hold; None asks nothing."""

    since: float | None = Field(default=None, allow_inf_nan=False, description="Unix seconds, included")
    until: float | None = Field(default=None, allow_inf_nan=False, description="Unix seconds, not included")
    category: Text | None = None
    expert: Text | None = Field(default=None, description="which answered, or was chosen if none did")
    policy: Text | None = None
    state: TerminalState | None = None
    feedback: Opinion | None = None
    doubt: Doubt | None = None
    router_version: Text | None = None
    probe: bool | None = Field(default=None, description="asked by coe itself")
    conversation: Text | None = Field(default=None, description="`session_id` of a record")


class DecisionLine(Record):
    """A decision in a list. `feedback` is the weighted mean of what was said, None without any."""

    decision_id: str
    at: float
    kind: DecisionKind
    requested_model: str
    state: TerminalState
    status: int
    error_code: str | None
    expert: str | None
    category: str | None
    likely_category: str | None
    confidence: float | None
    uncertainty: float | None
    is_fallback: bool | None
    reason: DecisionReason | None
    propensity: float | None
    policy: str | None
    router_version: str | None
    session_id: str | None
    key_id: str | None
    language: str | None
    turns: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    ttft_ms: float | None
    latency_ms: float
    is_probe: bool
    feedback: float | None
    text: str | None


class Spend(Record):
    """Sums over the requests of one key; None: of those without one."""

    key_id: str | None
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float


class Place(NamedTuple):
    """A place in a list: behind this decision."""

    at: float
    decision_id: str


class Page(NamedTuple):
    """A part of a list, and the place where it goes on; None at its end."""

    lines: tuple[DecisionLine, ...]
    next: Place | None
