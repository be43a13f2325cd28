"""POST /v1/rerank: documents of the request, ordered by the experts chosen for the query."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.endpoints.retrieval_access import Service, State, begin, finish
from gateway.http_errors import invalid
from gateway.retrieval.chunking import count_tokens
from gateway.retrieval.log import outcomes_of
from gateway.retrieval.routing import QueryRouting, RoutedQueries, why
from gateway.retrieval.schemas import RerankAnswer, RerankRequest, RerankResult, RerankText, TokenUsage
from router.retrieval.fusion import Ranking, fuse
from router.retrieval.records import DenseExpert, LexicalExpert
from router.types import DecisionKind, FloatArray

api = APIRouter()


@api.post("/v1/rerank", response_model=RerankAnswer)
async def rerank(asked: RerankRequest, request: Request, state: State, service: Service) -> Response:
    """Orders up to 1000 documents by their relevance to the query."""
    if not asked.query.strip():
        raise invalid("'query' is empty; allowed: a text", "query")
    documents = [each if isinstance(each, str) else each.text for each in asked.documents]
    exchange = begin(request, state, DecisionKind.RERANK, asked.model)
    async with state.admission:
        routed, (order, scores) = await service.run(ranked, service.routing, asked.query, documents, asked.model)
    exchange.overhead_ms = routed.routing_ms
    top = len(order) if asked.top_n is None else min(asked.top_n, len(order))
    tokens = count_tokens(asked.query) + sum(count_tokens(text) for text in documents)
    outcomes = outcomes_of(
        routed,
        keeps_embeddings=state.config.log.embeddings,
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
    return await finish(state, exchange, outcomes, body.model_dump(exclude_none=True))


def ranked(routing: QueryRouting, query: str, documents: Sequence[str], model: str) -> tuple[RoutedQueries, Ranking]:
    """Every document's place (n,), best first, with scores. Blocks. Raises ApiError 404."""
    routed = routing.route([query], model)
    decision = routed.decisions[0]
    members = [routing.expert(name) for name in decision.members]
    words = {each.name: each.index(documents) for each in members if isinstance(each, LexicalExpert)}
    rankings = [
        by_vectors(routing, routed, each, documents)
        if isinstance(each, DenseExpert)
        else words[each.name].search([query], len(documents))[0]
        for each in members
    ]
    evidence = partial(words[decision.members[-1]].evidence, query) if decision.evidence else None
    places, scores = fuse(rankings, decision.arm, len(documents), evidence)
    unnamed = np.setdiff1d(np.arange(len(documents)), places)  # no word in common with the query
    return routed, (np.concatenate([places, unnamed]), np.concatenate([scores, np.zeros(len(unnamed), np.float32)]))


def by_vectors(routing: QueryRouting, routed: RoutedQueries, expert: DenseExpert, documents: Sequence[str]) -> Ranking:
    (vector,) = routing.vectors(routed, [expert.name])
    scores: FloatArray = np.asarray(expert.encode_documents(documents) @ vector, dtype=np.float32)
    order = np.argsort(-scores, kind="stable").astype(np.int64)
    return order, scores[order]
