"""Retrieval in the decision log: one record per query that chose an expert, in the same stream as chat's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram

from coe.decision_log.decision_record import RETRIEVAL, DecisionKind, DecisionRecord, RetrievalTrace, TerminalState
from coe.decision_log.privacy import MAX_SEARCH_CHARS
from coe.decision_log.sink import DecisionLog
from coe.gateway.exchange import MAX_MODEL_CHARS, Watch, new_decision_id
from coe.retrieval.types import BASE, RetrievalDecision, RetrievalReason
from coe.router.features import to_bytes
from coe.router.retrieval_config import RetrievalConfig
from coe.router.types import DecisionReason, RoutingDecision
from coe.router.usage import Usage

if TYPE_CHECKING:
    from coe.retrieval.routing.query_routing import RoutedQueries

POLICY = "retrieval"
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

TRACED = {"members", "weights", "evidence", "learned_on", "reason", "scores", "similarity"}
"""Fields of a decision that its trace keeps."""

REASONS = {
    RetrievalReason.PILOTS: DecisionReason.QUERY,
    RetrievalReason.PLAIN: DecisionReason.MAP,
    RetrievalReason.UNPREPARED: DecisionReason.UNCERTAIN,
    RetrievalReason.EXPLICIT: DecisionReason.EXPLICIT,
    RetrievalReason.RERANKER: DecisionReason.MAP,
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
    watch: Watch | None = None
    at: float = field(default_factory=time.time)
    arrived_at_s: float = field(default_factory=time.perf_counter)
    overhead_ms: float = 0.0

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.arrived_at_s) * 1e3


@dataclass(frozen=True)
class Outcome:
    """One decision to write down: ids of the documents shown, and tokens of the query and of what was read."""

    decision_id: str
    text: str
    decision: RetrievalDecision
    embedding: bytes | None = None
    store_id: str | None = None
    documents: tuple[str, ...] = ()
    prompt_tokens: int = 0
    cost_usd: float = 0.0


class RetrievalLog:
    """Writes records to the sink, and counts.

    Args:
        registry: gets the metrics, whose labels are kinds of requests, names of experts.yaml and reasons.
        keeps_embeddings: records hold what the choice was made from.
        config: has the prices; None: there is no retrieval.
    """

    def __init__(
        self, sink: DecisionLog, registry: CollectorRegistry, *, keeps_embeddings: bool, config: RetrievalConfig | None
    ) -> None:
        self._sink, self._keeps_embeddings = sink, keeps_embeddings
        self._config = config
        about = "Choices of a retrieval expert"
        self._decisions = Counter("coe_retrieval_decisions", about, ["expert", "reason"], registry=registry)
        about = "From a request's arrival to its answer"
        self._seconds = Histogram("coe_retrieval_seconds", about, ["kind"], buckets=SECONDS_BUCKETS, registry=registry)

    def outcomes_of(
        self,
        routed: RoutedQueries,
        *,
        store_id: str | None = None,
        documents: Sequence[str] = (),
        prompt_tokens: Sequence[int],
    ) -> list[Outcome]:
        """One per query, each with a new decision id."""
        base = routed.base if self._keeps_embeddings else None
        return [
            Outcome(
                decision_id=new_decision_id(),
                text=text,
                decision=decision,
                embedding=None if base is None else to_bytes(base[row]),
                store_id=store_id,
                documents=tuple(documents),
                prompt_tokens=prompt_tokens[row],
                cost_usd=self._config.micro_usd(prompt_tokens[row], decision.members) / 1e6 if self._config else 0.0,
            )
            for row, (text, decision) in enumerate(zip(routed.texts, routed.decisions, strict=True))
        ]

    async def write(self, exchange: RetrievalExchange, outcomes: Sequence[Outcome]) -> None:
        """Before the answer: where the log is durable it is safe on return. Raises StoreError when it is not."""
        self._seconds.labels(exchange.kind.value).observe(exchange.elapsed_ms() / 1e3)
        for outcome in outcomes:
            self._decisions.labels(outcome.decision.expert, outcome.decision.reason.value).inc()
        records = [record_of(exchange, outcome, self._sink) for outcome in outcomes]
        if exchange.watch is not None:
            exchange.watch.retrieved(exchange.kind, exchange.model, exchange.at, records)
        if self._sink.is_durable:
            await asyncio.gather(*(self._sink.commit(record) for record in records))
            return
        for record in records:
            self._sink.append(record)


def record_of(exchange: RetrievalExchange, outcome: Outcome, sink: DecisionLog) -> DecisionRecord:
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
        cost_usd=outcome.cost_usd,
        latency_ms=exchange.elapsed_ms(),
        overhead_ms=exchange.overhead_ms,
        session_id=exchange.session_id,
        key_id=exchange.key_id,
        prompt_chars=len(outcome.text),
        text=outcome.text[:MAX_SEARCH_CHARS],
        embedding=outcome.embedding,
        retrieval=RetrievalTrace(
            store_id=outcome.store_id,
            documents=outcome.documents,
            **decision.model_dump(include=TRACED),
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
        eligible=(decision.expert,),
        eligible_probs=(1.0,),
        propensity=1.0,
        policy=POLICY,
        router_version=decision.library_version,
    )


def why_logged(record: DecisionRecord) -> str | None:
    """The reason of a logged retrieval decision, in words; None for chat."""
    trace, made = record.retrieval, record.decision
    if trace is None or made is None:
        return None
    from coe.retrieval.routing.query_routing import why

    decision = trace.model_dump(include=TRACED) | {"library_version": made.router_version}
    return f"{why(RetrievalDecision.model_validate(decision))}."


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
