"""Queries, probabilities, scores and decisions: the values that cross module boundaries, which nobody changes.

Arrays are named by their shape: n queries, d embedding dimensions, k categories, m experts. What crosses a process
boundary (log, HTTP, disk) is a pydantic model that refuses unknown keys; what stays inside is a dataclass. The ask in a
message, which a query is made from, is at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from coe.router.loop import LoopState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]
    Float64Array = NDArray[np.float64]
    IntArray = NDArray[np.int64]
    BoolArray = NDArray[np.bool_]
else:
    FloatArray = Float64Array = IntArray = BoolArray = Any  # commands that read the log alone start without numpy

GENERAL = "general"
"""The category of queries that the classifier is unsure of. Always present, never learned as a class."""


class Record(BaseModel):
    """A frozen record that refuses unknown keys. In JSON bytes are base64, and NaN and infinities strings: as null they
    could not be read back."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        ser_json_inf_nan="strings",
        hide_input_in_errors=True,  # which may be a prompt, and get into a log with a traceback
    )


class View(StrEnum):
    """The part of a request that its category is read from. Each has a threshold of its own for what is unsure."""

    WHOLE = "whole"  # the user's message as it is
    ASK = "ask"  # the part of a long message that asks, and the whole, by how likely each asks
    UNCLEAR = "unclear"  # as `ASK`, of a long message no part of which clearly asks
    TASK = "task"  # the system prompt, whose material is the user's message


@dataclass(frozen=True, slots=True)
class QueryFacts:
    """Demands of a request on an expert, read from its messages without looking at their meaning."""

    turns: int = 1
    has_image: bool = False
    has_audio: bool = False  # in what is asked, or wanted in the answer
    has_tools: bool = False
    wants_json: bool = False
    wants_logprobs: bool = False
    constraints: frozenset[str] = frozenset()  # fields of the request that bind the answer to a form
    prompt_chars: int = 0
    max_output_tokens: int | None = None
    needs_api: str | None = None  # of router.expert_config.ClientApi: a chat request could not say all that was asked
    allowed: tuple[str, ...] | None = None  # experts that its key may use; None: all
    loop: LoopState | None = None  # results of tools came since the last answer
    answers: int = 0  # in its conversation so far
    last_expert: str | None = None  # of its conversation; None: it begins here, or nobody remembers
    cached_tokens: int = 0  # of the prompt, in the last expert's prefix cache
    moves: int = 0  # of its conversation, within loops
    last_reason: str | None = None  # a DecisionReason: why its conversation came to the last expert
    asleep: tuple[str, ...] = ()  # experts whose engine has no weights on the GPU now
    limited: tuple[str, ...] = ()  # experts at their rate limit
    view: View = View.WHOLE  # what its category was read from
    unknown_language: str | None = None  # script of letters that no labelled query has; None: it has hardly any

    @property
    def has_media(self) -> bool:
        return self.has_image or self.has_audio

    @property
    def in_tool_loop(self) -> bool:
        return self.loop is not None

    @property
    def continues(self) -> bool:
        """A conversation that an expert has answered before."""
        return self.turns > 1 or self.in_tool_loop

    @property
    def prompt_tokens(self) -> int:
        """Lower estimate of prompt tokens: 4 characters a token, the usual ratio for English text (ours)."""
        return self.prompt_chars // 4


@dataclass(frozen=True, slots=True)
class Query:
    """One request as the router sees it. `text` is the last human message, already stripped and capped, `earlier` are
    those before it in its conversation, newest first, and `system` is the system prompt, capped."""

    id: str
    text: str
    facts: QueryFacts = field(default_factory=QueryFacts)
    earlier: tuple[str, ...] = ()
    system: str = ""

    def read_from(self, view: View, unknown_language: str | None) -> Query:
        """Return the query with the view that its category is read from, and the script of an unknown language."""
        if view is self.facts.view and unknown_language == self.facts.unknown_language:
            return self
        return replace(self, facts=replace(self.facts, view=view, unknown_language=unknown_language))


@dataclass(frozen=True)
class QueryBatch:
    """Queries with their embeddings (n, d), float32, rows L2-normalised or all zero."""

    queries: tuple[Query, ...]
    embeddings: FloatArray

    @classmethod
    def of(cls, texts: Iterable[str], embeddings: FloatArray) -> QueryBatch:
        """Build a batch of texts that need nothing beside themselves, numbered."""
        queries = (Query(str(i), text, QueryFacts(prompt_chars=len(text))) for i, text in enumerate(texts))
        return cls(tuple(queries), embeddings)

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or self.embeddings.shape[0] != len(self.queries):
            raise ValueError(
                f"embeddings have shape {self.embeddings.shape}; expected ({len(self.queries)}, d) for the queries"
            )


@dataclass(frozen=True)
class CategoryProbs:
    """Category names and probabilities (n, k); rows sum to 1. Names travel with the matrix."""

    categories: tuple[str, ...]
    probs: FloatArray

    def __post_init__(self) -> None:
        if self.probs.ndim != 2 or self.probs.shape[1] != len(self.categories):
            raise ValueError(f"probs have shape {self.probs.shape}; expected (n, {len(self.categories)})")


@dataclass(frozen=True)
class ExpertScores:
    """Expert names with predicted quality (n, m) in [0, 1] and its standard error (n, m)."""

    experts: tuple[str, ...]
    quality: FloatArray
    stderr: FloatArray

    def __post_init__(self) -> None:
        if self.quality.shape != self.stderr.shape or self.quality.shape[1] != len(self.experts):
            raise ValueError(
                f"quality {self.quality.shape} and stderr {self.stderr.shape} must be (n, {len(self.experts)})"
            )


class DecisionReason(StrEnum):
    """Reason for which this expert was chosen."""

    MAP = "map"  # the category's expert in the learned map
    QUERY = "query"  # best predicted quality for this very query, under the budgets
    PINNED = "pinned"  # experts.yaml pins the category to an expert
    UNCERTAIN = "uncertain"  # stage 1 was unsure: the map's expert for `general`
    NEXT_BEST = "next_best"  # the planned expert could not serve; the next in the policy's order did
    EXPLORED = "explored"  # drawn by exploration
    KEPT = "kept"  # the conversation stays with its expert, where the policy would plan another now
    ESCALATED = "escalated"  # the loop had stalled: the strongest expert of the policy, until it is settled
    CACHED = "cached"  # the answer was in the cache, from that expert
    EXPLICIT = "explicit"  # the client named the expert, or an alias of it
    UNGRADED = "ungraded"  # no expert that the router knows can serve; one that nobody has graded can

    @property
    def is_routed(self) -> bool:
        """False where no router chose the expert."""
        return self not in (DecisionReason.EXPLICIT, DecisionReason.UNGRADED, DecisionReason.CACHED)


class StayRule(StrEnum):
    """The rule by which a conversation stays with its expert or moves."""

    PRICE = "price"  # it moves where the gain is above the price
    UNSURE = "unsure"  # stays: stage 1 is unsure what is asked
    EXPLORED = "explored"  # a loop whose expert is tried stays, so that its end tells of one expert
    STALLED = "stalled"  # a loop that repeats itself moves to the strongest expert, if that is another
    UNSETTLED = "unsettled"  # a loop with an error or a repetition stays, unless it gains
    SETTLED = "settled"  # a loop that was stalled returns to the planned expert, unless it loses more than it saves
    SPENT = "spent"  # a loop has moved as often as it may


class Stay(Record):
    """A conversation that could stay with its expert."""

    last_expert: str
    gain: float = Field(description="predicted quality of the other expert, planned or strongest, less the last one's")
    price: float | None = Field(description="of the move, as quality, below 0 where it saves; None: it does not decide")
    kept: bool
    rule: StayRule = StayRule.PRICE
    moves: int = Field(default=0, description="of the conversation within loops, with this one")


class Asleep(Record):
    """The expert that would have served, had its engine been awake."""

    expert: str
    lost: float = Field(description="its predicted quality less that of the expert that served")
    is_waking: bool = Field(description="its engine is being woken")


class Rest(Record):
    """The experts that a decision weighed and its record does not name; `sha256` is of the lists with them."""

    eligible: int
    prob: float = Field(description="sum of their probabilities")
    shut_out: int = Field(description="how many of them could not serve, or the policy did not let")
    reasons: dict[str, int] = Field(description="the most frequent reasons of those")
    sha256: str


class RoutingDecision(Record):
    """The router's decision for one query, with everything needed to explain it."""

    expert: str
    category: str
    confidence: float = Field(ge=0, le=1, description="calibrated probability of the most likely category")
    is_fallback: bool = Field(description="stage 1 was unsure and `category` is `general`")
    reason: DecisionReason
    likely_category: str = Field(description="most likely category, also when the decision fell back to `general`")
    uncertainty: float = Field(description="score that was compared with the threshold; larger is less sure")
    runner_up: str | None = Field(default=None, description="first in the ranking beside `expert`: the one tried next")
    ranking: tuple[str, ...] = Field(
        default=(),
        description="the policy's order of the eligible experts, which next best, failover and runner-up follow",
    )
    eligible: tuple[str, ...] = ()
    eligible_probs: tuple[float, ...] = Field(
        default=(), description="probability of each eligible expert; with that of the rest they sum to 1"
    )
    predicted_quality: tuple[float, ...] = Field(default=(), description="per eligible expert, in [0, 1]")
    excluded: dict[str, str] = Field(default_factory=dict, description="expert ruled out -> what it lacks")
    outside_policy: dict[str, str] = Field(
        default_factory=dict, description="expert that the policy's budgets keep from serving this query -> why"
    )
    excluded_quality: tuple[float, ...] = Field(
        default=(), description="predicted quality per excluded expert, then per expert outside the policy"
    )
    predicted_cost_usd: tuple[float, ...] = Field(
        default=(), description="mean cost of a query of this category: of the eligible, then in the order above"
    )
    predicted_wait_ms: tuple[float | None, ...] = Field(
        default=(), description="mean latency of the same; None where it was never measured"
    )
    category_probs: dict[str, float] = Field(default_factory=dict, description="the few most likely categories")
    threshold: float | None = Field(
        default=None, description="above it the uncertainty leads to `general`; None: everything does, or no stage 1"
    )
    view: View = Field(default=View.WHOLE, description="what the category was read from")
    unknown_language: str | None = Field(
        default=None,
        description="script, such as `greek` or `latin`, of letters that no labelled query has; None: hardly any",
    )
    seed: int | None = Field(default=None, ge=0, description="of the random draw; None when nothing was drawn")
    propensity: float = Field(
        gt=0, le=1, description="probability with which `expert` was chosen; 1.0 when deterministic"
    )
    stay: Stay | None = Field(default=None, description="None where no expert of the conversation could go on")
    asleep: Asleep | None = Field(default=None, description="None where the best expert was awake")
    rest: Rest | None = Field(default=None, description="None where every expert is named")
    policy: str = "default"
    router_version: str = Field(description="content hash of the artifact; 'none' when the client named the expert")

    def following(self, unavailable: Collection[str]) -> str | None:
        """Return the next expert of the ranking that can be tried, or None."""
        return next((name for name in self.ranking if name not in unavailable), None)


class Interval(Record):
    """A two-sided confidence interval at `level`."""

    low: float
    high: float
    level: float = 0.95


class Metric(Record):
    """A number with its interval and the sample it comes from."""

    value: float
    interval: Interval | None = None
    n: int | None = None

    @classmethod
    def within(cls, low: float, value: float, high: float, n: int | None = None) -> Metric:
        """Build a number between the ends of its 95% interval."""
        return cls(value=value, interval=Interval(low=low, high=high), n=n)

    def times(self, factor: float) -> Metric:
        """Return the metric in another unit, or of the opposite sign."""
        interval = self.interval
        if interval is not None:
            low, high = sorted((interval.low * factor, interval.high * factor))
            interval = interval.model_copy(update={"low": low, "high": high})
        return self.model_copy(update={"value": self.value * factor, "interval": interval})


class Verdict(StrEnum):
    """Decision of a gate on a candidate that may replace what is live."""

    PROMOTE = "promote"
    DECLINE = "decline"
    NEED_MORE = "need more"


# Agent programs wrap what a person typed. The content of the first kind is dropped, the second is unwrapped.
DROPPED_WRAPPERS = (
    "system-reminder",
    "environment_details",
    "environment_context",
    "user_instructions",
    "additional_data",
)
OPENED_WRAPPERS = ("task", "user_query", "user_message")

CUT_MARK = "\n[...]\n"


def ask_in(text: str) -> str:
    """Extract a person's ask from a message."""
    return unwrap(text).strip()


def unwrap(text: str) -> str:
    """Return the text without what agent programs put around it, in time linear in the text."""
    if "<" not in text:
        return text
    for name in DROPPED_WRAPPERS:
        text = without_blocks(text, f"<{name}>", f"</{name}>")
    for name in OPENED_WRAPPERS:
        start, end = text.find(f"<{name}>"), text.rfind(f"</{name}>")
        if 0 <= start < end:
            return text[start + len(name) + 2 : end]
    return text


def without_blocks(text: str, opening: str, closing: str) -> str:
    """Remove what lies between each opening and its closing; an opening that is never closed stays."""
    kept = []
    position = 0
    while (start := text.find(opening, position)) >= 0 and (end := text.find(closing, start)) >= 0:
        kept.append(text[position:start])
        position = end + len(closing)
    return "".join([*kept, text[position:]])


def cap(text: str, max_chars: int) -> str:
    """Return the head and tail of a text that is too long: the question is usually first or last."""
    if len(text) <= max_chars:
        return text
    half = (max_chars - len(CUT_MARK)) // 2
    return f"{text[:half]}{CUT_MARK}{text[-half:]}"
