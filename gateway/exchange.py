"""One chat as values: what was asked, how it went, and the record and headers that follow from both."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import quote

from decision_log.decision_record import (
    CallState,
    DecisionInputs,
    DecisionKind,
    DecisionRecord,
    ShadowDecision,
    StrategyTrace,
    TerminalState,
)
from fleet.backend import BackendRequest
from gateway.chat_request import ChatRequest
from gateway.http_errors import ApiError
from gateway.keys.counters import Cost
from gateway.keys.grants import Caller
from gateway.keys.limits import Hold
from router.brief_decision import brief
from router.cost import cost
from router.expert_config import ExpertConfig, Wire
from router.strategies.types import Chosen
from router.types import DecisionReason, RoutingDecision, Stay
from router.usage import Usage

MAX_REQUEST_ID_CHARS = 128
MAX_MODEL_CHARS = 128
NO_USAGE = Usage()
ALIAS_CHARS = "/:@+~"  # beside letters, digits and "_.-~"; others are sent as %XX


def new_decision_id() -> str:
    """An id that nobody can guess. It begins with the time, so that new rows are neighbours in the database's index,
    where ids by chance would change a page each."""
    return f"dec-{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The client's request id where it is safe to repeat in headers and logs, else a new one."""
    given = headers.get(b"x-request-id", b"")
    if 0 < len(given) <= MAX_REQUEST_ID_CHARS and given.isascii():
        text = given.decode()
        if all(c.isalnum() or c in "-_.:" for c in text):
            return text
    return f"req-{os.urandom(12).hex()}"


class Sources(Protocol):
    """Passages of a vector store that were put into a prompt."""

    def headers(self) -> dict[str, str]:
        """The headers that name them."""
        ...

    def in_body(self, body: bytes) -> bytes:
        """The body of a whole answer with a list of them."""
        ...


class Watch:
    """Observer of a request, for traces and for the log of requests; this one sees nothing."""

    decision_id: str | None = None  # that the request's decision gets; None: any

    def calls(self, expert: str, entry: ExpertConfig, request: BackendRequest) -> Mapping[str, str]:
        """An expert is called now. Gives headers for it."""
        return {}

    def fails(self, error: ApiError) -> None:
        """The call of `error.expert` gave no answer."""

    def hears(self, expert: str) -> None:
        """An answer begins."""

    def ends(self, asked: Asked, outcome: Outcome) -> None:
        """The chat has ended, one way or another."""

    def retrieved(self, kind: DecisionKind, model: str, at: float, records: Sequence[DecisionRecord]) -> None:
        """Retrieval experts were chosen for queries and have answered, from `at` (Unix seconds) until now."""


class Slot(NamedTuple):
    """The place of a request's answer in the cache, and the answer that was found there."""

    key: str
    answer: str | None = None


class Decided(NamedTuple):
    """A decision and what it was made from.

    `inputs` and `embedding` are None where the client named the expert; `embedding` also where the log keeps none.
    `alias` is the model that was asked for, where experts.yaml gives that name a meaning.
    `conversation` is the name by which its expert is remembered; None where the client named the expert.
    `chosen` is the strategy by which several experts are asked, or why it is not followed; None: one is asked.
    `slot` is the place of the answer in the cache; None where it may not be kept.
    `shadow` gives what a router on trial decides meanwhile, or None if it is not ready; None without a trial.
    """

    decision: RoutingDecision
    inputs: DecisionInputs | None = None
    embedding: bytes | None = None
    shadow: Callable[[], ShadowDecision | None] | None = None
    alias: str | None = None
    conversation: str | None = None
    slot: Slot | None = None
    chosen: Chosen | StrategyTrace | None = None


class Asked(NamedTuple):
    """A request, its sender, its times: `at` in Unix seconds, those named `*_at_s` of the monotonic clock."""

    request_id: str
    caller: Caller
    session_id: str
    session: str  # what identifies the conversation, before it is hashed
    chat: ChatRequest
    at: float
    arrived_at_s: float
    received_at_s: float  # the last byte was here
    decision_id: str
    wants_debug: bool = False
    is_probe: bool = False
    is_batch: bool = False
    watch: Watch | None = None  # there only where requests are traced or logged

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.arrived_at_s) * 1e3


@dataclass(slots=True)
class Outcome:
    """The course of a chat so far. Only the exchange that it belongs to, in gateway/chat.py, writes it."""

    decided: Decided | None = None
    expert: str | None = None  # asked last
    at_work: str | None = None  # the expert that was sent the request; None once it failed otherwise than by its time
    failures: dict[str, str] = field(default_factory=dict)  # of experts that were asked before it: why
    state: TerminalState = TerminalState.REJECTED
    status: int = 500
    error_code: str | None = None
    finish_reason: str | None = None
    usage: Usage = NO_USAGE
    served_model: str | None = None  # as the answer says; None for one out of the cache
    overhead_ms: float = 0.0
    ttft_ms: float | None = None
    queue_ms: float | None = None  # of waits for a place, at one expert after the other
    engine: int | None = None  # of the expert
    left_out: tuple[str, ...] = ()  # fields of the request that the expert does not take
    is_admitted: bool = False  # it got past the limits, so the log has a row of it
    sources: Sources | None = None
    hold: Hold | None = None  # of a caller with caps
    strategy: StrategyTrace | None = None  # of several experts that were asked
    spent: Cost | None = None  # on these

    def end(self, state: TerminalState, status: int, error_code: str | None = None) -> None:
        self.state, self.status, self.error_code = state, status, error_code

    @property
    def decision(self) -> RoutingDecision | None:
        return None if self.decided is None else self.decided.decision

    @property
    def answered_by(self) -> str | None:
        """The expert that served; None when the one that was tried last never began to answer."""
        has_spoken = self.state is TerminalState.ANSWERED or self.ttft_ms is not None
        return self.expert if has_spoken else None


def response_headers(asked: Asked, outcome: Outcome) -> dict[str, str]:
    """The `x-coe-*` headers; never prompt text. A request that was not admitted has no row, so no decision to name."""
    headers = {"x-request-id": asked.request_id, "x-coe-schema": "1"}
    is_message = asked.chat.native is not None and asked.chat.native.wire is Wire.MESSAGES
    headers |= {"request-id": asked.request_id} if is_message else {}  # its name in Anthropic's API
    if outcome.is_admitted:
        headers["x-coe-decision-id"] = asked.decision_id
    if outcome.hold is not None:
        headers |= outcome.hold.headers
    decision = outcome.decision
    if decision is None:
        return headers
    headers |= {
        "x-coe-expert": outcome.expert or decision.expert,
        "x-coe-category": decision.category,
        "x-coe-confidence": f"{decision.confidence:.4f}",
        "x-coe-router-version": decision.router_version,
        "x-coe-overhead-ms": f"{outcome.overhead_ms:.2f}",
    }
    if outcome.queue_ms is not None:
        headers["x-coe-queue-ms"] = f"{outcome.queue_ms:.1f}"
    if outcome.left_out:
        headers["x-coe-left-out"] = ", ".join(outcome.left_out)
    if decision.stay is not None:
        headers["x-coe-conversation"] = stay_note(decision.stay)
    if outcome.decided is not None and outcome.decided.alias is not None:
        headers["x-coe-alias"] = quote(outcome.decided.alias[:MAX_MODEL_CHARS], safe=ALIAS_CHARS)
    trace = outcome.strategy
    if trace is not None and trace.declined is None:
        answered = sum(call.state is CallState.ANSWERED and not call.is_judge for call in trace.calls)
        headers["x-coe-strategy"] = trace.name
        headers["x-coe-calls"] = str(len(trace.calls))
        headers["x-coe-agreement"] = f"{trace.agreed} of {answered}"
    note = fallback_note(decision, outcome.expert, trace)
    if note:
        headers["x-coe-fallback"] = note
    if outcome.sources is not None:
        headers |= outcome.sources.headers()
    if asked.wants_debug:
        pairs = zip(decision.eligible, decision.predicted_quality, strict=True)
        headers["x-coe-eligible"] = ", ".join(decision.eligible)
        headers["x-coe-predicted-quality"] = ", ".join(f"{name}={quality:.4f}" for name, quality in pairs)
    return headers


def stay_note(stay: Stay) -> str:
    """The header `x-coe-conversation`: kept or moved, with what a move would gain and its price."""
    never = "none, unsure what is asked" if stay.is_unsure else "none, a tool loop"
    price = never if stay.price is None else f"{stay.price:.4f}"
    return f"{'kept' if stay.kept else 'moved'}; gain={stay.gain:.4f}; price={price}"


def fallback_note(decision: RoutingDecision, expert: str | None, trace: StrategyTrace | None) -> str:
    """The header `x-coe-fallback`: `uncertain` (stage 1), `explored` (another expert was planned), `failover:EXPERT`
    (that one failed), `single` (a strategy brought no answer, or was not followed); empty for none of them."""
    notes = ["uncertain"] if decision.is_fallback else []
    if decision.reason is DecisionReason.EXPLORED:
        notes.append("explored")
    is_settled = trace is not None and trace.is_settled
    if trace is not None and not (is_settled and trace.agreed):  # no reply stated an answer that could be compared
        notes.append("single")
    if is_failover(decision, expert, trace):
        notes.append(f"failover:{decision.expert}")
    return ", ".join(notes)


def is_failover(decision: RoutingDecision, expert: str | None, trace: StrategyTrace | None) -> bool:
    """Returns True where an expert was asked because the decided one had failed."""
    return expert not in (None, decision.expert) and not (trace is not None and trace.is_settled)


def record_of(
    asked: Asked, outcome: Outcome, *, experts: Mapping[str, ExpertConfig], replica: str, seq: int, latency_ms: float
) -> DecisionRecord:
    """The log's row. The sink decides what it keeps of the text."""
    chat, decided, served, usage = asked.chat, outcome.decided, outcome.answered_by, outcome.usage
    if served is None and outcome.at_work is not None:  # who has read the prompt at least
        usage = Usage(prompt_tokens=chat.facts.prompt_tokens, is_estimated=True)
    return DecisionRecord(
        decision_id=asked.decision_id,
        request_id=asked.request_id,
        replica=replica,
        seq=seq,
        at=asked.at,
        requested_model=chat.model[:MAX_MODEL_CHARS],
        state=outcome.state,
        decision=outcome.decision and brief(outcome.decision, (served,)),
        served_expert=served,
        served_model=outcome.served_model,
        failures=outcome.failures,
        engine=outcome.engine,
        status=outcome.status,
        error_code=outcome.error_code,
        finish_reason=outcome.finish_reason,
        is_stream=chat.is_stream,
        usage=usage,
        cost_usd=cost_of(outcome.strategy, usage, experts.get(served or outcome.at_work or ""), asked.is_batch),
        ttft_ms=outcome.ttft_ms,
        latency_ms=latency_ms,
        overhead_ms=outcome.overhead_ms,
        session_id=asked.session_id,
        key_id=asked.caller.key_id,
        is_probe=asked.is_probe,
        turns=chat.facts.turns,
        in_tool_loop=chat.facts.in_tool_loop,
        prompt_chars=chat.facts.prompt_chars,
        text=chat.text,
        inputs=decided.inputs if decided else None,
        strategy=outcome.strategy,
        shadow=decided.shadow() if decided and decided.shadow else None,
        embedding=decided.embedding if decided else None,
    )


def cost_of(trace: StrategyTrace | None, usage: Usage, served: ExpertConfig | None, is_batch: bool) -> float:
    """USD of all calls: those of a strategy, and that of the expert that served without one."""
    several = 0.0 if trace is None else trace.cost_usd
    return several if trace is not None and trace.is_settled else several + cost_usd(usage, served, is_batch)


def cost_usd(usage: Usage, expert: ExpertConfig | None, is_batch: bool = False) -> float:
    """Price of one answer."""
    return 0.0 if expert is None else cost(usage, expert.rates(is_batch))


ANSWER = re.compile(r"(?:chatcmpl-|cmpl-|msg_|resp_)(?:dec-)?([0-9a-f]{20,60})")


def answer_id(prefix: str, decision_id: str) -> str:
    """The id of an answer on a surface whose ids begin with `prefix`."""
    return prefix + decision_id.removeprefix("dec-")


def decision_named(name: str) -> str:
    """The decision of an answer's id, which holds the decision's: nothing has to be stored. A name that
    is not one of our ids stays as it is."""
    found = ANSWER.fullmatch(name)
    return name if found is None else f"dec-{found[1]}"
