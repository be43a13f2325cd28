"""POST /v1/vector_stores/{id}/search, in OpenAI's shape, with the experts that searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from coe.base.json_text import Body
from coe.decision_log.decision_record import DecisionKind
from coe.gateway.endpoints.access import Owner, OwnStore, Service, api_router
from coe.gateway.endpoints.retrieval_exchange import Desk, Outcome, check_tokens
from coe.gateway.endpoints.store_api import Json, Text
from coe.gateway.http_errors import invalid
from coe.retrieval.routing.query_routing import why
from coe.retrieval.stores.filters import Filter, fault_of
from coe.retrieval.stores.store_search import Found, SearchAnswer, SearchRequest
from coe.router.section import AUTO

api = api_router("/v1/vector_stores")


class RankingOptions(Body):
    """The expert ranks, so only the threshold matters."""

    ranker: str | None = None
    score_threshold: float | None = Field(default=None, ge=-1, le=1)


class SearchBody(Body):
    """POST /v1/vector_stores/{id}/search. `model` is an addition: a retrieval expert, or `auto`."""

    query: Text | Annotated[list[Text], Field(min_length=1, max_length=16, fail_fast=True)]
    filters: Filter | None = None
    max_num_results: int = Field(default=10, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    rewrite_query: bool = False
    model: str = Field(default=AUTO, min_length=1)


@api.post("/{store_id}/search")
async def search_store(
    store: OwnStore, asked: SearchBody, request: Request, desk: Desk, service: Service, owner: Owner
) -> Response:
    """The chunks that fit best, and which expert found them and why."""
    wanted = search_request(asked)
    exchange = desk.begin(request, service.config, DecisionKind.SEARCH, asked.model)
    tokens = await check_tokens(wanted.queries, "query")
    async with desk.at_work(request, exchange, sum(tokens)):
        found = await service.search(owner, store, wanted)
        exchange.read_by(found.routed.decisions)
    exchange.overhead_ms = found.routed.routing_ms
    outcomes = desk.outcomes_of(
        exchange,
        found.routed,
        store_id=store.store_id,
        documents=[each.chunk.document_id for each in found.found],
        prompt_tokens=tokens,
    )
    ignored = ["rewrite_query"] if asked.rewrite_query else []
    return await desk.finish(
        exchange, outcomes, lambda: search_view(found, [decision_view(each) for each in outcomes], ignored)
    )


def search_request(asked: SearchBody) -> SearchRequest:
    """Raises ApiError 400."""
    queries = (asked.query,) if isinstance(asked.query, str) else tuple(asked.query)
    for place, query in enumerate(queries):
        if not query.strip():
            where = "query" if isinstance(asked.query, str) else f"query[{place}]"
            raise invalid(f"'{where}' is empty; allowed: a text", where)
    fault = None if asked.filters is None else fault_of(asked.filters)
    if fault is not None:
        raise invalid(f"'filters': {fault}", "filters")
    threshold = asked.ranking_options.score_threshold if asked.ranking_options else None
    return SearchRequest(queries, asked.max_num_results, asked.model, asked.filters, threshold)


def search_view(answer: SearchAnswer, decisions: Sequence[Json], ignored: Sequence[str]) -> Json:
    """A page of results, with who searched and why."""
    return {
        "object": "vector_store.search_results.page",
        "search_query": list(answer.routed.texts),
        "data": [found_view(each) for each in answer.found],
        "has_more": False,
        "next_page": None,
        "decisions": list(decisions),
        "ignored": list(ignored),
    }


def found_view(found: Found) -> Json:
    chunk = found.chunk
    return {
        "file_id": chunk.file_id,
        "filename": chunk.filename,
        "score": round(found.score, 6),
        "attributes": chunk.attributes,
        "content": [{"type": "text", "text": chunk.text}],
        "document_id": chunk.document_id,
    }


def decision_view(outcome: Outcome) -> dict[str, object]:
    decision = outcome.decision
    return {
        "decision_id": outcome.decision_id,
        "expert": decision.expert,
        "members": list(decision.members),
        "reason": decision.reason.value,
        "why": why(decision),
        "similarity": decision.similarity,
    }
