"""The record of a decision (one row of the log), its parts, and changes of the models that records name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import Field

from coe.router.loop import LoopState
from coe.router.prices.usage import Usage
from coe.router.types import QueryFacts, Record, RoutingDecision

RETRIEVAL = ":retrieval"
"""Category of a retrieval decision; no category of experts.yaml can have this name."""

OUR_FAULTS = frozenset(
    {
        "server_shutting_down",
        "gateway_fault",
        "misconfigured",
        "not_ready",
        "store_unavailable",
        "stores_unavailable",
        "other_vector_space",
        "expert_credentials",
        "expert_misconfigured",
        "no_expert_alive",
    }
)
"""Error codes of the gateway's own outages and settings. They do not count against experts (docs/decision-log.md)."""

PROBE_HEADER = "x-coe-probe"
"""Request header by which `coe eval collect` and `coe up` mark their own requests (value `1`)."""


class DecisionInputs(Record):
    """Inputs of a decision besides the router's version: enough to repeat it, or to say why that is impossible.

    The eligible experts and the exclusions follow from `facts` and `unreachable`. With the router's artifact, they also
    give what the decision's `rest` summarizes.
    """

    encoder: str = Field(description="fingerprint of the encoder")
    features: str = Field(
        description="keyed hash of the embedding, as `router.features` makes it; '' where the log keeps no hashes"
    )
    settings: str = Field(description="identity of the policy as experts.yaml had it, see `Router.settings`")
    facts: QueryFacts = Field(description="but for the loop, which the record has")
    unreachable: tuple[str, ...] = Field(default=(), description="experts of the router that did not answer then")


class TerminalState(StrEnum):
    """The end of a request. Every request with a decision ends in exactly one of these states."""

    ANSWERED = "answered"
    UPSTREAM_ERROR = "upstream_error"
    TIMED_OUT = "timed_out"
    CLIENT_GONE = "client_gone"
    REJECTED = "rejected"


class CallState(StrEnum):
    """The end of one call of a strategy."""

    ANSWERED = "answered"
    FAILED = "failed"
    CANCELLED = "cancelled"  # not needed any more, or the client left


class AskedExpert(Record):
    """One call of a strategy.

    Calls with the same `answer` number gave the same answer; None means that it stated none. The usage of a cancelled
    call is an estimate of its prompt. `propensity` is the probability of the call, given the replies before it.
    """

    expert: str
    state: CallState
    answer: int | None = None
    usage: Usage = Usage()
    cost_usd: float = Field(default=0.0, ge=0)
    latency_ms: float = Field(default=0.0, ge=0)
    error_code: str | None = None
    propensity: float = Field(default=0.0, ge=0, le=1)


class StrategyTrace(Record):
    """The calls of a strategy for one answer.

    If `is_settled` is false, no answer was chosen: a single expert served, or the client left. `agreed` counts the
    experts that gave the served answer. `declined` says why the policy's strategy called no expert for this request.
    """

    name: str
    is_settled: bool
    agreed: int = 0
    calls: tuple[AskedExpert, ...] = ()
    declined: str | None = None

    @property
    def cost_usd(self) -> float:
        """The cost of all calls in USD."""
        return sum(call.cost_usd for call in self.calls)


class DecisionKind(StrEnum):
    """Kind of request. All but `chat` chose among retrieval experts, which no chat map has."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    SEARCH = "search"
    RERANK = "rerank"


class RetrievalTrace(Record):
    """The query and results of a retrieval decision, from which pilots are refreshed."""

    store_id: str | None = None
    members: tuple[str, ...] = Field(description="experts that searched; their rankings were fused")
    weights: tuple[float, ...]
    evidence: tuple[float, ...] = Field(default=(), description="weights of what words say, in a fusion that counts it")
    learned_on: str | None = Field(default=None, description="data set that taught the weights")
    reason: str = Field(description="a RetrievalReason")
    scores: dict[str, float] = Field(default_factory=dict, description="arm -> predicted nDCG@10 minus the plain arm's")
    similarity: float | None = Field(default=None, description="cosine to the nearest labelled query")
    documents: tuple[str, ...] = Field(default=(), description="ids of the documents shown, best first")


class DecisionRecord(Record):
    """One row of the decision log: what was asked, decided and answered.

    `seq` rises by one per record of a `replica` (one run of a gateway process), so that a gap is a lost row. `text`
    exists only at privacy level `text`, `text_hash` (keyed) at `text` and `hash`.
    """

    kind: DecisionKind = DecisionKind.CHAT
    decision_id: str
    request_id: str
    replica: str
    seq: int = Field(ge=0)
    at: float = Field(description="Unix seconds when the request arrived")
    requested_model: str
    state: TerminalState
    decision: RoutingDecision | None = Field(
        description="None when the request was rejected before an expert was chosen"
    )
    served_expert: str | None = Field(
        default=None, description="who answered; differs from decision.expert after a failover"
    )
    served_model: str | None = Field(default=None, description="model that the answer names, where it names one")
    failures: dict[str, str] = Field(
        default_factory=dict,
        description="experts that failed before another was asked, in order, with the error's code",
    )
    engine: int | None = Field(
        default=None, description="which engine answered, from 1, of an expert with several or with max_concurrency"
    )
    status: int = Field(description="HTTP status sent to the client; 499 when the client left first")
    error_code: str | None = None
    finish_reason: str | None = None
    is_stream: bool = False
    usage: Usage = Usage()
    cost_usd: float = Field(default=0.0, ge=0)
    ttft_ms: float | None = Field(default=None, description="request arrival to first byte of the answer")
    latency_ms: float = Field(ge=0, description="request arrival to last byte")
    overhead_ms: float = Field(default=0.0, ge=0, description="time spent in the gateway before the expert was called")
    session_id: str | None = None
    key_id: str | None = None
    language: str | None = None
    is_probe: bool = Field(default=False, description="asked by coe itself, to measure or to show: not traffic")
    turns: int = 1
    loop: LoopState | None = Field(
        default=None, description="an agent continues what was asked, with results of tools; else None"
    )
    prompt_chars: int = 0
    text: str | None = None
    text_hash: str | None = None
    inputs: DecisionInputs | None = Field(default=None, description="None when nothing was classified")
    embedding: bytes | None = Field(
        default=None, description="what the router decided from, d half-precision numbers, where the log keeps it"
    )
    retrieval: RetrievalTrace | None = Field(default=None, description="None for chat")
    strategy: StrategyTrace | None = Field(default=None, description="None where one expert was asked")


def read_record(line: str | bytes) -> DecisionRecord:
    """Parse a record from JSON and ignore fields of newer versions that share the log; may raise ValidationError."""
    return DecisionRecord.model_validate_json(line, extra="ignore")


DAY = re.compile(r"[-@]\d{4}-?\d{2}-?\d{2}$")
"""Date of a snapshot in a model's name; engines may answer with full names, adapters or dated snapshots."""


@dataclass(frozen=True)
class ModelChange:
    """A change of an expert's model from `before` to `after`, first seen at Unix time `at`."""

    expert: str
    at: float
    before: str
    after: str


def undated(model: str) -> str:
    """Return a model's name without a snapshot date: gpt-4o for gpt-4o-2024-08-06."""
    return DAY.sub("", model)


def is_change(before: str, model: str) -> bool:
    """Return whether a name means another model.

    An undated name is less specific, not different: streams of litellm name the alias where whole answers name the
    snapshot.
    """
    return model != before and undated(model) != before and undated(before) != model


@dataclass
class ModelHistory:
    """The models of the experts over a log in order of time. `last` has the last change of each expert."""

    now: dict[str, str] = field(default_factory=dict)
    last: dict[str, ModelChange] = field(default_factory=dict)
    changes: list[ModelChange] = field(default_factory=list)

    def add(self, record: DecisionRecord) -> None:
        """Add the next record in order of time."""
        model, expert = record.served_model, record.served_expert
        if model is None or expert is None:
            return
        before = self.now.get(expert)
        if before is not None and is_change(before, model):
            self.last[expert] = ModelChange(expert, record.at, before, model)
            self.changes.append(self.last[expert])
        if before is None or undated(before) != model:
            self.now[expert] = model
