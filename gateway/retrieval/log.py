"""Retrieval in the decision log: one record per query that chose an expert, in the same stream as chat's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from decision_log.privacy import MAX_SEARCH_CHARS
from decision_log.protocols import DecisionSink
from gateway.exchange import MAX_MODEL_CHARS, new_decision_id, request_id_of
from gateway.metrics import Metrics
from gateway.retrieval.metrics import RetrievalMetrics
from retrieval.routing.query_routing import RoutedQueries, why
from retrieval.types import BASE, RetrievalDecision, RetrievalReason
from router.features import to_bytes
from router.types import (
    RETRIEVAL,
    DecisionKind,
    DecisionReason,
    DecisionRecord,
    RetrievalTrace,
    RoutingDecision,
    TerminalState,
    Usage,
)

POLICY = "retrieval"

REASONS = {
    RetrievalReason.PILOTS: DecisionReason.QUERY,
    RetrievalReason.BASE: DecisionReason.MAP,
    RetrievalReason.UNPREPARED: DecisionReason.UNCERTAIN,
    RetrievalReason.EXPLICIT: DecisionReason.EXPLICIT,
    RetrievalReason.ONLY: DecisionReason.MAP,
}


@dataclass
class RetrievalExchange:
    """One request to a retrieval endpoint. `decision_ids` are given out before the answer, one per decision."""

    kind: DecisionKind
    request_id: str
    key_id: str | None
    model: str
    session_id: str | None = None
    at: float = field(default_factory=time.time)
    arrived_at_s: float = field(default_factory=time.perf_counter)
    overhead_ms: float = 0.0

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.arrived_at_s) * 1e3


@dataclass(frozen=True)
class Outcome:
    """What to write down of one decision: ids of the documents shown, and tokens of the query and of what was read."""

    decision_id: str
    text: str
    decision: RetrievalDecision
    embedding: bytes | None = None
    store_id: str | None = None
    documents: tuple[str, ...] = ()
    prompt_tokens: int = 0


def outcomes_of(
    routed: RoutedQueries,
    *,
    keeps_embeddings: bool,
    store_id: str | None = None,
    documents: Sequence[str] = (),
    prompt_tokens: Iterable[int] | None = None,
) -> list[Outcome]:
    """One per query, each with a new decision id."""
    tokens = list(prompt_tokens) if prompt_tokens is not None else [0] * len(routed.texts)
    return [
        Outcome(
            decision_id=new_decision_id(),
            text=text,
            decision=decision,
            embedding=to_bytes(routed.base[row]) if keeps_embeddings and routed.base is not None else None,
            store_id=store_id,
            documents=tuple(documents),
            prompt_tokens=tokens[row],
        )
        for row, (text, decision) in enumerate(zip(routed.texts, routed.decisions, strict=True))
    ]


class RetrievalLog:
    """Writes records to the sink, and counts."""

    def __init__(self, sink: DecisionSink, metrics: Metrics) -> None:
        self._sink = sink
        self._metrics = RetrievalMetrics(metrics.registry)

    async def write(self, exchange: RetrievalExchange, outcomes: Sequence[Outcome]) -> None:
        """Before the answer: where the log is durable it is safe on return. Raises StoreError when it is not."""
        self._metrics.requests.labels(exchange.kind.value, "200").inc()
        self._metrics.seconds.labels(exchange.kind.value).observe(exchange.elapsed_ms() / 1e3)
        for outcome in outcomes:
            self._metrics.decisions.labels(outcome.decision.expert, outcome.decision.reason.value).inc()
        records = [record_of(exchange, outcome, self._sink) for outcome in outcomes]
        if self._sink.is_durable:
            await asyncio.gather(*(self._sink.commit(record) for record in records))
            return
        for record in records:
            self._sink.append(record)


def record_of(exchange: RetrievalExchange, outcome: Outcome, sink: DecisionSink) -> DecisionRecord:
    """The log's row. The sink decides what it keeps of the text."""
    decision = outcome.decision
    return DecisionRecord(
        kind=exchange.kind,
        decision_id=outcome.decision_id,
        request_id=exchange.request_id,
        replica=sink.replica,
        seq=sink.next_seq(),
        at=exchange.at,
        requested_model=exchange.model[:MAX_MODEL_CHARS],
        state=TerminalState.ANSWERED,
        decision=routing_decision(decision),
        served_expert=decision.expert,
        status=200,
        usage=Usage(prompt_tokens=outcome.prompt_tokens, is_estimated=True),
        latency_ms=exchange.elapsed_ms(),
        overhead_ms=exchange.overhead_ms,
        session_id=exchange.session_id,
        key_id=exchange.key_id,
        prompt_chars=len(outcome.text),
        text=outcome.text[:MAX_SEARCH_CHARS],
        embedding=outcome.embedding,
        retrieval=RetrievalTrace(
            store_id=outcome.store_id,
            members=decision.members,
            weights=decision.weights,
            evidence=decision.evidence,
            learned_on=decision.learned_on,
            reason=decision.reason.value,
            scores=decision.scores,
            similarity=decision.similarity,
            documents=outcome.documents,
        ),
    )


def routing_decision(decision: RetrievalDecision) -> RoutingDecision:
    """A retrieval decision in the words of the log."""
    similarity = min(max(decision.similarity or 0.0, 0.0), 1.0)
    return RoutingDecision(
        expert=decision.expert,
        category=RETRIEVAL,
        confidence=similarity,
        is_fallback=decision.reason is RetrievalReason.UNPREPARED,
        reason=REASONS[decision.reason],
        likely_category=RETRIEVAL,
        uncertainty=1.0 - similarity,
        runner_up=decision.runner_up,
        eligible=(decision.expert,) if decision.propensity == 1.0 else (),
        eligible_probs=(1.0,) if decision.propensity == 1.0 else (),
        propensity=decision.propensity,
        policy=POLICY,
        router_version=decision.library_version,
    )


def why_logged(record: DecisionRecord) -> str | None:
    """The reason of a logged retrieval decision, in words; None for chat."""
    trace, made = record.retrieval, record.decision
    if trace is None or made is None:
        return None
    decision = RetrievalDecision(
        expert=made.expert,
        members=trace.members,
        weights=trace.weights,
        evidence=trace.evidence,
        learned_on=trace.learned_on,
        scores=trace.scores,
        similarity=trace.similarity,
        reason=RetrievalReason(trace.reason),
        propensity=made.propensity,
        library_version=made.router_version,
    )
    return f"{why(decision)}."


def response_headers(exchange: RetrievalExchange, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """The `x-coe-*` headers: of a batch the experts that took part, and the first decision's id."""
    headers = {"x-request-id": exchange.request_id, "x-coe-schema": "1"}
    if not outcomes:
        return headers
    decisions = [outcome.decision for outcome in outcomes]
    experts = dict.fromkeys(name for decision in decisions for name in decision.members)
    return headers | {
        "x-coe-decision-id": outcomes[0].decision_id,
        "x-coe-expert": ", ".join(experts or (BASE,)),
        "x-coe-reason": ", ".join(dict.fromkeys(decision.reason.value for decision in decisions)),
        "x-coe-router-version": decisions[0].library_version,
        "x-coe-overhead-ms": f"{exchange.overhead_ms:.2f}",
    }


def exchange_for(
    kind: DecisionKind, headers: Mapping[bytes, bytes], key_id: str | None, model: str, session_id: str | None
) -> RetrievalExchange:
    return RetrievalExchange(kind, request_id_of(headers), key_id, model, session_id)
