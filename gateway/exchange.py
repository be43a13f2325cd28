"""One request from arrival to its record in the decision log."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from decision_log.protocols import DecisionSink
from gateway.answer_reader import StreamReader
from gateway.shadow import PendingShadow
from gateway.wire import ChatRequest
from router.config import ExpertConfig
from router.types import DecisionInputs, DecisionRecord, RoutingDecision, TerminalState, Usage

if TYPE_CHECKING:
    from gateway.retrieval.attachment import Sources

CLIENT_GONE_STATUS = 499  # nginx's number for a client that left first; it never travels
MAX_REQUEST_ID_CHARS = 128
MAX_MODEL_CHARS = 128


def new_decision_id() -> str:
    return f"dec-{secrets.token_hex(12)}"


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The client's request id where it is safe to repeat in headers and logs, else a new one."""
    given = headers.get(b"x-request-id", b"")
    if 0 < len(given) <= MAX_REQUEST_ID_CHARS and given.isascii():
        text = given.decode()
        if all(c.isalnum() or c in "-_.:" for c in text):
            return text
    return f"req-{secrets.token_hex(12)}"


@dataclass(slots=True)
class Exchange:
    """What is known of one request so far. Times named `*_at_s` are of the monotonic clock."""

    request_id: str
    key_id: str | None = None
    wants_debug: bool = False
    is_probe: bool = False
    decision_id: str = field(default_factory=new_decision_id)
    at: float = field(default_factory=time.time)  # Unix seconds
    arrived_at_s: float = field(default_factory=time.perf_counter)
    request: ChatRequest | None = None
    session_id: str | None = None
    decision: RoutingDecision | None = None
    inputs: DecisionInputs | None = None  # what it was made from
    shadow: PendingShadow | None = None  # what a router on trial decides meanwhile
    embedding: bytes | None = None  # likewise, where the log keeps it
    served_expert: str | None = None
    state: TerminalState = TerminalState.REJECTED
    status: int = 500
    error_code: str | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    overhead_ms: float = 0.0
    ttft_ms: float | None = None
    has_started: bool = False  # the head of the answer is on its way to the client
    is_admitted: bool = False  # it got past the limits, so the log has a row for it
    seq: int | None = None  # its number in the log, once it has one
    is_recorded: bool = False  # its row went to the log before the answer's end
    reader: StreamReader | None = None  # follows the stream while one passes
    is_sampled: bool = False  # its answer is kept until the end, for a judge
    answer_text: str | None = None  # there only when it is sampled; never logged
    sources: Sources | None = None  # what a vector store added to the prompt

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.arrived_at_s) * 1e3

    def end(self, state: TerminalState, status: int, error_code: str | None = None) -> None:
        self.state, self.status, self.error_code = state, status, error_code

    def decided(self, decision: RoutingDecision, inputs: DecisionInputs | None, embedding: bytes | None) -> None:
        self.decision, self.inputs, self.embedding = decision, inputs, embedding

    def take_number(self, sink: DecisionSink) -> int:
        """Its number in the log, from now on. Taken before the client sees the end: the log will miss its row."""
        if self.seq is None:
            self.seq = sink.next_seq()
        return self.seq

    @property
    def answered_by(self) -> str | None:
        """Who served; None when the expert that was tried last never began to answer."""
        has_spoken = self.state is TerminalState.ANSWERED or self.ttft_ms is not None
        return self.served_expert if has_spoken else None

    def fallback_note(self) -> str | None:
        """What the header `x-coe-fallback` says: `uncertain` (stage 1), `failover:EXPERT` (that one failed)."""
        if self.decision is None:
            return None
        notes = ["uncertain"] if self.decision.is_fallback else []
        if self.served_expert not in (None, self.decision.expert):
            notes.append(f"failover:{self.decision.expert}")
        return ", ".join(notes) or None

    def response_headers(self) -> dict[str, str]:
        """The `x-coe-*` headers; never prompt text. What was not admitted has no row, so no decision to ask for."""
        headers = {"x-request-id": self.request_id, "x-coe-schema": "1"}
        if self.is_admitted:
            headers["x-coe-decision-id"] = self.decision_id
        decision = self.decision
        if decision is None:
            return headers
        headers |= {
            "x-coe-expert": self.served_expert or decision.expert,
            "x-coe-category": decision.category,
            "x-coe-confidence": f"{decision.confidence:.4f}",
            "x-coe-router-version": decision.router_version,
            "x-coe-overhead-ms": f"{self.overhead_ms:.2f}",
        }
        note = self.fallback_note()
        if note is not None:
            headers["x-coe-fallback"] = note
        if self.sources is not None:
            headers |= self.sources.headers()
        if self.wants_debug:
            pairs = zip(decision.eligible, decision.predicted_quality, strict=True)
            headers["x-coe-eligible"] = ", ".join(decision.eligible)
            headers["x-coe-predicted-quality"] = ", ".join(f"{name}={quality:.4f}" for name, quality in pairs)
        return headers

    def record(self, sink: DecisionSink, experts: Mapping[str, ExpertConfig]) -> DecisionRecord:
        """The log's row. The sink decides what it keeps of the text."""
        request = self.request
        return DecisionRecord(
            decision_id=self.decision_id,
            request_id=self.request_id,
            replica=sink.replica,
            seq=self.take_number(sink),
            at=self.at,
            requested_model=request.model[:MAX_MODEL_CHARS] if request else "",
            state=self.state,
            decision=self.decision,
            served_expert=self.answered_by,
            status=self.status,
            error_code=self.error_code,
            finish_reason=self.finish_reason,
            is_stream=request.is_stream if request else False,
            usage=self.usage,
            cost_usd=cost_usd(self.usage, experts.get(self.answered_by or "")),
            ttft_ms=self.ttft_ms,
            latency_ms=self.elapsed_ms(),
            overhead_ms=self.overhead_ms,
            session_id=self.session_id,
            key_id=self.key_id,
            is_probe=self.is_probe,
            turns=request.facts.turns if request else 0,
            prompt_chars=request.facts.prompt_chars if request else 0,
            text=request.text if request else None,
            inputs=self.inputs,
            shadow=None if self.shadow is None else self.shadow.result(),
            embedding=self.embedding,
        )


def cost_usd(usage: Usage, expert: ExpertConfig | None) -> float:
    """Price of one answer by the list prices in experts.yaml."""
    if expert is None:
        return 0.0
    per_million = usage.prompt_tokens * expert.price_in_per_m_usd + usage.completion_tokens * expert.price_out_per_m_usd
    return per_million / 1e6
