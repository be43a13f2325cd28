"""A retrieval request that gets records: limits before it, and after it one record per query that chose an expert, in
the same stream as chat's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Request
from starlette.responses import Response

from coe.decision_log.decision_record import RETRIEVAL, DecisionKind, DecisionRecord, RetrievalTrace, TerminalState
from coe.decision_log.privacy import MAX_SEARCH_CHARS, named_session, new_decision_id
from coe.decision_log.sink import DecisionLog
from coe.gateway.endpoints.access import answer, part
from coe.gateway.exchange import MAX_MODEL_CHARS
from coe.gateway.http.admission import ConcurrencyLimit
from coe.gateway.http.asgi import ClientWatch
from coe.gateway.http_errors import ApiError, ClientGoneError, api_error, invalid
from coe.gateway.keys.counters import NOTHING, Cost, nano_usd
from coe.gateway.keys.limits import Limits
from coe.gateway.metrics import Metrics
from coe.retrieval.stores.cutting import count_tokens
from coe.retrieval.types import BASE, RetrievalDecision, RetrievalReason
from coe.router.config.retrieval import MAX_REQUEST_TOKENS, REQUEST_TIMEOUT_S, RERANKER, RetrievalConfig
from coe.router.prices.usage import Usage
from coe.router.reading.features import to_bytes
from coe.router.types import DecisionReason, RoutingDecision

if TYPE_CHECKING:
    from coe.gateway.exchange import Watch
    from coe.gateway.keys.grants import Caller
    from coe.retrieval.routing.query_routing import RoutedQueries

POLICY = "retrieval"

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
    """One request to a retrieval endpoint, for the log.

    Args:
        config: has the prices.
        readers: the experts that read its texts; None until that is known.
    """

    config: RetrievalConfig
    kind: DecisionKind
    request_id: str
    caller: Caller
    model: str
    session_id: str | None = None
    watch: Watch | None = None
    at: float = field(default_factory=time.time)
    arrived_at_s: float = field(default_factory=time.perf_counter)
    overhead_ms: float = 0.0
    readers: frozenset[str] | None = None

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.arrived_at_s) * 1e3

    def read_by(self, decisions: Iterable[RetrievalDecision]) -> None:
        self.readers = frozenset(name for decision in decisions for name in decision.members)

    def cost(self, tokens: int) -> Cost:
        """What caps count; the most while the readers are not known."""
        return Cost(tokens, nano_usd(micro_usd(self.config, tokens, self.readers)))


def micro_usd(config: RetrievalConfig, tokens: int, experts: Collection[str] | None) -> float:
    """The price of a request in millionths of a dollar. Base reads every text, since it chooses the expert, unless the
    reranker does the work.

    Args:
        experts: those that read the texts too; None: the most, which is all of them.
    """
    prices = config.prices_per_m_usd
    if experts is None:
        return tokens * sum(prices.values())
    readers = {*experts} if RERANKER in experts else {BASE, *experts}
    return tokens * sum(prices[name] for name in prices.keys() & readers)


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


@dataclass(frozen=True)
class RetrievalDesk:
    """The frame around a retrieval request: limits before it, the log after it.

    Args:
        session_id: gives a conversation its name in the log.
        keeps_embeddings: records hold what the choice was made from.
    """

    sink: DecisionLog
    metrics: Metrics
    concurrency: ConcurrencyLimit
    limits: Limits
    session_id: Callable[[str, str], str]
    is_stopping: Callable[[], bool]
    keeps_embeddings: bool

    def begin(self, request: Request, config: RetrievalConfig, kind: DecisionKind, model: str) -> RetrievalExchange:
        known = request.state
        named = named_session(dict(request.scope["headers"]))
        session = None if named is None else self.session_id(named, known.caller.tenant)
        return RetrievalExchange(
            config, kind, known.request_id, known.caller, model[:MAX_MODEL_CHARS], session, known.watch
        )

    @asynccontextmanager
    async def at_work(self, request: Request, exchange: RetrievalExchange, tokens: int) -> AsyncIterator[None]:
        """A block that runs as one of the gateway's requests, while its client is there and for at most the time that
        the configuration allows. It has to tell the exchange who read the texts.

        Args:
            tokens: of its texts, as they count for caps.

        Raises:
            ApiError: 429 there are too many requests, of its key or of all, 503 the gateway stops or cannot count,
                504 it took too long.
            StoreError: its rows could not be made safe now.
            ClientGoneError: the client left; what the block waited for is given up.
        """
        self.sink.check()
        caller, limit_s = exchange.caller, REQUEST_TIMEOUT_S
        hold = await self.limits.reserve(caller, exchange.cost(tokens)) if caller.caps else None
        has_begun = is_spent = False
        try:
            with ClientWatch(request.state.peer):
                async with asyncio.timeout(limit_s), self.concurrency:
                    has_begun = True
                    yield
            is_spent = True
        except ClientGoneError:
            is_spent = has_begun  # the texts may have been read
            raise
        except TimeoutError as error:
            is_spent = has_begun
            raise ApiError(
                f"the request took more than the {limit_s:g} s that are allowed; send fewer or shorter texts",
                status=504,
                code="retrieval_timeout",
            ) from error
        except asyncio.CancelledError as error:
            if not self.is_stopping():
                raise
            raise api_error(error) from None
        finally:
            if hold is not None:
                hold.settle(exchange.cost(tokens) if is_spent else NOTHING)

    def outcomes_of(
        self,
        exchange: RetrievalExchange,
        routed: RoutedQueries,
        *,
        store_id: str | None = None,
        documents: Sequence[str] = (),
        prompt_tokens: Sequence[int],
    ) -> list[Outcome]:
        """One per query, each with a new decision id."""
        base = routed.base if self.keeps_embeddings else None
        return [
            Outcome(
                decision_id=new_decision_id(),
                text=text,
                decision=decision,
                embedding=None if base is None else to_bytes(base[row]),
                store_id=store_id,
                documents=tuple(documents),
                prompt_tokens=prompt_tokens[row],
                cost_usd=micro_usd(exchange.config, prompt_tokens[row], decision.members) / 1e6,
            )
            for row, (text, decision) in enumerate(zip(routed.texts, routed.decisions, strict=True))
        ]

    async def finish(
        self, exchange: RetrievalExchange, outcomes: Sequence[Outcome], body: Callable[[], dict[str, object]]
    ) -> Response:
        """Writes the decisions down, then answers: where the log is durable they are safe before. The rows say
        `answered`, so the answer is made first: it might fail.

        Args:
            body: makes the answer, in a thread, because it may hold a million numbers.

        Raises:
            StoreError: a row could not be made safe.
        """
        headers = response_headers(exchange, outcomes)
        response = await asyncio.to_thread(lambda: answer(body(), headers))
        self.metrics.retrieval_seconds.labels(exchange.kind.value).observe(exchange.elapsed_ms() / 1e3)
        for outcome in outcomes:
            self.metrics.retrieval_decisions.labels(outcome.decision.expert, outcome.decision.reason.value).inc()
        records = [record_of(exchange, outcome, self.sink) for outcome in outcomes]
        if exchange.watch is not None:
            exchange.watch.retrieved(exchange.kind, exchange.model, exchange.at, records)
        if self.sink.is_durable:
            await asyncio.gather(*map(self.sink.commit, records))
        else:
            for record in records:
                self.sink.append(record)
        return response


Desk = Annotated[RetrievalDesk, part("retrieval_desk")]


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
        requested_model=exchange.model,
        state=TerminalState.ANSWERED,
        decision=routing_decision(decision),
        served_expert=decision.expert,
        status=200,
        usage=Usage(prompt_tokens=outcome.prompt_tokens, is_estimated=True),
        cost_usd=outcome.cost_usd,
        latency_ms=exchange.elapsed_ms(),
        overhead_ms=exchange.overhead_ms,
        session_id=exchange.session_id,
        key_id=exchange.caller.key_id,
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


async def check_tokens(texts: Sequence[str], param: str) -> list[int]:
    """The estimated tokens of each text. Raises ApiError 400 when they are too many together."""
    counts = await asyncio.to_thread(lambda: [count_tokens(text) for text in texts])
    allowed = MAX_REQUEST_TOKENS
    if sum(counts) > allowed:
        raise invalid(f"'{param}' holds {sum(counts)} tokens; allowed: at most {allowed} in a request", param)
    return counts
