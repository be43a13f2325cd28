"""One chat as values: who asks, how it goes, and the headers that tell."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from coe.decision_log.decision_record import (
    CallState,
    DecisionInputs,
    DecisionKind,
    DecisionRecord,
    StrategyTrace,
    TerminalState,
)
from coe.router.config.expert import ClientApi
from coe.router.prices.usage import Usage
from coe.router.types import DecisionReason, RoutingDecision, Stay

if TYPE_CHECKING:
    from coe.fleet.calls.backend import BackendRequest
    from coe.gateway.answer_cache import Slot
    from coe.gateway.chat_request import ChatRequest
    from coe.gateway.http_errors import ApiError
    from coe.gateway.keys.grants import Caller
    from coe.router.config.expert import ExpertConfig
    from coe.router.strategies.agree import Chosen

MAX_MODEL_CHARS = 128
ALIAS_CHARS = "/:@+~"  # beside letters, digits and "_.-~"; others are sent as %XX
NO_USAGE = Usage()


class Watch:
    """Observer of a request, for traces and for the log of requests; this one sees nothing."""

    def calls(self, expert: str, entry: ExpertConfig, request: BackendRequest) -> Mapping[str, str]:
        """An expert is called now. Gives headers for it."""
        return {}

    def fails(self, error: ApiError) -> None:
        """The call of `error.expert` gave no answer."""

    def hears(self, expert: str) -> None:
        """An answer begins."""

    def ends(self, row: ChatRow) -> None:
        """The chat has ended, one way or another."""

    def retrieved(self, kind: DecisionKind, model: str, at: float, records: Sequence[DecisionRecord]) -> None:
        """Retrieval experts were chosen for queries and have answered, from `at` (Unix seconds) until now."""


class RequestContext(NamedTuple):
    """The sender of a request, the names of the request, and when it came.

    `conversation` is what identifies the conversation, before it is hashed; `session_id` is its name in the log.
    It began to arrive at `at` (Unix seconds) and `arrived_at_s`, and all of it was there at `received_at_s` (both of
    the monotonic clock).
    """

    request_id: str
    decision_id: str
    caller: Caller
    conversation: str
    session_id: str
    at: float
    arrived_at_s: float
    received_at_s: float
    is_probe: bool = False
    is_batch: bool = False
    watch: Watch | None = None  # there only where requests are traced or logged

    def elapsed_ms(self) -> float:
        """Since the request began to arrive."""
        return (time.perf_counter() - self.arrived_at_s) * 1e3


@dataclass(slots=True)
class Calls:
    """The calls of experts for one request so far, one after another.

    Args:
        overhead_ms: from the request's last byte to the first of them.
        at_work: the expert that was sent the request; None once it failed otherwise than by its time.
        failures: of experts that were asked before it: why.
        queue_ms: of waits for a place; None where nobody had to queue.
        expert: who answered, or failed last; None where neither did.
        strategy: of several experts that were asked; None where one was.
    """

    overhead_ms: float = 0.0
    at_work: str | None = None
    failures: dict[str, str] = field(default_factory=dict)
    queue_ms: float | None = None
    expert: str | None = None
    strategy: StrategyTrace | None = None


class Decided(NamedTuple):
    """A decision and what it was made from.

    `inputs` and `embedding` are None where the client named the expert; `embedding` also where the log keeps none.
    `strategy` asks several experts; `declined` says why the policy's own is not followed; neither: one is asked.
    `alias` is the model that was asked for, where experts.yaml gives that name a meaning.
    `conversation` is the name by which its expert is remembered; None where the client named the expert.
    `slot` is the place of the answer in the cache; None where it may not be kept.
    """

    decision: RoutingDecision
    inputs: DecisionInputs | None = None
    embedding: bytes | None = None
    strategy: Chosen | None = None
    declined: StrategyTrace | None = None
    alias: str | None = None
    conversation: str | None = None
    slot: Slot | None = None

    @property
    def known(self) -> str | None:
        """The answer that the cache has."""
        return None if self.slot is None or self.slot.answer is None else self.slot.answer.text


@dataclass(slots=True)
class AnswerFacts:
    """An answer as far as it was read.

    Args:
        engine: which one of several of the expert gave it.
        left_out: fields of the request that the expert does not take.
        model: that it names; None for one out of the cache.
        text: what a judge or the cache needs of it; None where neither does. It is never logged.
    """

    engine: int | None = None
    left_out: tuple[str, ...] = ()
    model: str | None = None
    finish_reason: str | None = None
    usage: Usage = NO_USAGE
    ttft_ms: float | None = None
    text: str | None = None


class Ending(NamedTuple):
    """The end of a chat: its state in the log, the HTTP status for the client, and the code of an error."""

    state: TerminalState
    status: int
    error_code: str | None = None


NOT_ENDED = Ending(TerminalState.REJECTED, 500)


@dataclass(slots=True)
class ChatRow:
    """The log's row of one chat: its request, what was decided, the calls that followed, the answer, and its ending.

    Args:
        is_admitted: it got past the limits, so the log has a row of it.
        decided: None where it was rejected before.
        seq: its number in the log, once that would miss it.
    """

    context: RequestContext
    chat: ChatRequest
    is_admitted: bool = False
    decided: Decided | None = None
    calls: Calls = field(default_factory=Calls)
    answer: AnswerFacts = field(default_factory=AnswerFacts)
    ending: Ending = NOT_ENDED
    seq: int | None = None

    @property
    def decision(self) -> RoutingDecision | None:
        return None if self.decided is None else self.decided.decision

    @property
    def answered_by(self) -> str | None:
        """The expert that served; None when the one that was tried last never began to answer."""
        has_spoken = self.ending.state is TerminalState.ANSWERED or self.answer.ttft_ms is not None
        return self.calls.expert if has_spoken else None


def response_headers(row: ChatRow, *, is_debug: bool) -> dict[str, str]:
    """The `x-coe-*` headers of a chat; never prompt text. One that was not admitted has no row, so no decision to name.

    Args:
        is_debug: the client asked for what was weighed, too.
    """
    context, native, decided, calls = row.context, row.chat.native, row.decided, row.calls
    headers = {"x-request-id": context.request_id, "x-coe-schema": "1"}
    if native is not None and native.api is ClientApi.MESSAGES:
        headers["request-id"] = context.request_id  # its name in Anthropic's API
    if row.is_admitted:
        headers["x-coe-decision-id"] = context.decision_id
    if decided is None:
        return headers
    decision, alias = decided.decision, decided.alias
    headers |= {
        "x-coe-expert": calls.expert or decision.expert,
        "x-coe-category": decision.category,
        "x-coe-confidence": f"{decision.confidence:.4f}",
        "x-coe-router-version": decision.router_version,
        "x-coe-overhead-ms": f"{calls.overhead_ms:.2f}",
    }
    if calls.queue_ms is not None:
        headers["x-coe-queue-ms"] = f"{calls.queue_ms:.1f}"
    if row.answer.left_out:
        headers["x-coe-left-out"] = ", ".join(row.answer.left_out)
    if decision.stay is not None:
        headers["x-coe-conversation"] = stay_note(decision.stay)
    if alias is not None:
        headers["x-coe-alias"] = quote(alias[:MAX_MODEL_CHARS], safe=ALIAS_CHARS)
    trace = calls.strategy
    if trace is not None and trace.declined is None:
        answered = sum(call.state is CallState.ANSWERED for call in trace.calls)
        headers["x-coe-strategy"] = trace.name
        headers["x-coe-calls"] = str(len(trace.calls))
        headers["x-coe-agreement"] = f"{trace.agreed} of {answered}"
    note = fallback_note(decision, calls.expert, trace)
    if note:
        headers["x-coe-fallback"] = note
    if is_debug:
        pairs = zip(decision.eligible, decision.predicted_quality, strict=True)
        headers["x-coe-eligible"] = ", ".join(decision.eligible)
        headers["x-coe-predicted-quality"] = ", ".join(f"{name}={quality:.4f}" for name, quality in pairs)
    return headers


def stay_note(stay: Stay) -> str:
    """The header `x-coe-conversation`: kept or moved, with what a move would gain and its price."""
    price = f"none, {stay.rule}" if stay.price is None else f"{stay.price:.4f}"
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


ANSWER = re.compile(r"(?:chatcmpl-|cmpl-|msg_|resp_)(?:dec-)?([0-9a-f]{20,60})")


def answer_id(prefix: str, decision_id: str) -> str:
    """The id of an answer of an API whose ids begin with `prefix`."""
    return prefix + decision_id.removeprefix("dec-")


def decision_named(name: str) -> str:
    """The decision of an answer's id, which holds the decision's: nothing has to be stored. A name that
    is not one of our ids stays as it is."""
    found = ANSWER.fullmatch(name)
    return name if found is None else f"dec-{found[1]}"
