"""POST /v1/rerank: documents of the request, ordered by the experts chosen for the query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from coe.base.json_text import Body
from coe.decision_log.decision_record import DecisionKind
from coe.gateway.endpoints.access import Owner, Service, api_router
from coe.gateway.endpoints.embeddings import TokenUsage
from coe.gateway.endpoints.retrieval_exchange import Desk, check_tokens
from coe.gateway.endpoints.store_api import Text
from coe.gateway.http_errors import invalid
from coe.retrieval.fair_threads import pieces
from coe.retrieval.routing.fusion import Ranking, fuse
from coe.retrieval.routing.query_routing import RoutedQueries, why
from coe.retrieval.service import RetrievalService
from coe.retrieval.types import DenseExpert, KeyArray, RetrievalReason, single
from coe.router.config.retrieval import RERANKER
from coe.router.section import AUTO
from coe.router.types import FloatArray, Record

api = api_router()

MAX_RERANKED = 1000


class RerankText(Body):
    """A document as an object."""

    text: Text


class RerankRequest(Body):
    """POST /v1/rerank, in the shape of Cohere and Jina."""

    model: str = Field(default=AUTO, min_length=1)
    query: Text
    documents: list[Text | RerankText] = Field(min_length=1, max_length=MAX_RERANKED, fail_fast=True)
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = True


class RerankResult(Record):
    """One document; `index` is its place in the request."""

    index: int
    relevance_score: float
    document: RerankText | None = None


class RerankAnswer(Record):
    """Documents, most relevant first, and who judged them."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RerankResult]
    usage: TokenUsage
    expert: str
    why: str


@api.post("/v1/rerank", response_model=RerankAnswer)
async def rerank(asked: RerankRequest, request: Request, desk: Desk, service: Service, owner: Owner) -> Response:
    """Orders up to 1000 documents by relevance to the query."""
    if not asked.query.strip():
        raise invalid("'query' is empty; allowed: a text", "query")
    documents = [each if isinstance(each, str) else each.text for each in asked.documents]
    exchange = desk.begin(request, service.config, DecisionKind.RERANK, asked.model)
    tokens = sum(await check_tokens([asked.query, *documents], "documents"))
    async with desk.at_work(request, exchange, tokens):
        routed, (order, scores) = await ranked(service, owner, asked.query, documents, asked.model)
        exchange.read_by(routed.decisions)
    exchange.overhead_ms = routed.routing_ms
    top = len(order) if asked.top_n is None else min(asked.top_n, len(order))
    outcomes = desk.outcomes_of(
        exchange,
        routed,
        documents=[f"index-{place}" for place in order[:top]],
        prompt_tokens=[tokens],
    )
    decision = routed.decisions[0]
    results = [
        RerankResult(
            index=int(order[rank]),
            relevance_score=round(float(scores[rank]), 6),
            document=RerankText(text=documents[order[rank]]) if asked.return_documents else None,
        )
        for rank in range(top)
    ]
    body = RerankAnswer(
        id=outcomes[0].decision_id,
        model=decision.expert,
        results=results,
        usage=TokenUsage(prompt_tokens=tokens, total_tokens=tokens),
        expert=decision.expert,
        why=why(decision),
    )
    return await desk.finish(exchange, outcomes, lambda: body.model_dump(exclude_none=True))


async def ranked(
    service: RetrievalService, owner: str, query: str, documents: Sequence[str], model: str
) -> tuple[RoutedQueries, Ranking]:
    """Every document's place (n,), best first, with scores. Raises ApiError 404.

    A reranker is asked for all documents at once, embedding experts a few at a time.
    """
    if service.reranker is not None and model in (AUTO, RERANKER):
        reason = RetrievalReason.RERANKER if model == AUTO else RetrievalReason.EXPLICIT
        scores = await service.run_soon(owner, service.reranker.scores, query, documents)
        return RoutedQueries((query,), (single(RERANKER, reason),)), in_order(scores)
    routing = service.routing
    routed = await service.run_soon(owner, routing.route, [query], model)
    decision = routed.decisions[0]
    rankings: list[Ranking] = []
    evidence: Callable[[KeyArray], FloatArray] | None = None
    for member in (routing.expert(name) for name in decision.members):
        if isinstance(member, DenseExpert):
            (vector,) = await service.run(owner, routing.vectors, routed, [member.name])
            found = [await service.run(owner, cosines, member, documents[some], vector) for some in pieces(documents)]
            rankings.append(in_order(np.concatenate(found)))
        else:
            words = await service.run(owner, member.index, documents)
            rankings.append(await service.run(owner, words.search, query, len(documents)))
            evidence = partial(words.evidence, query)
    places, scores = fuse(rankings, decision, len(documents), evidence)
    unnamed = np.setdiff1d(np.arange(len(documents)), places)  # no word in common with the query
    return routed, (np.concatenate([places, unnamed]), np.concatenate([scores, np.zeros(len(unnamed), np.float32)]))


def cosines(expert: DenseExpert, documents: Sequence[str], vector: FloatArray) -> FloatArray:
    return np.asarray(expert.encode_documents(documents) @ vector, dtype=np.float32)


def in_order(scores: FloatArray) -> Ranking:
    order = np.argsort(-scores, kind="stable").astype(np.int64)
    return order, scores[order]
