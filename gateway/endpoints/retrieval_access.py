"""What every retrieval endpoint takes from a request, and how it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Query, Request
from starlette.responses import Response

from decision_log.privacy import named_session
from gateway.asgi import ClientWatch
from gateway.endpoints.access import caller_key_id, gateway_state
from gateway.exchange import MAX_MODEL_CHARS
from gateway.http_errors import ApiError, invalid
from gateway.retrieval.log import Outcome, RetrievalExchange, exchange_for, response_headers
from gateway.state import GatewayState
from retrieval.routing.query_routing import why
from retrieval.service import RetrievalService
from retrieval.stores.cutting import count_tokens
from retrieval.stores.store_records import Page
from retrieval.stores.vector_stores import VectorStores
from router.json_text import to_json
from router.types import DecisionKind

State = Annotated[GatewayState, Depends(gateway_state)]
KeyId = Annotated[str | None, Depends(caller_key_id)]


def retrieval_service(state: State) -> RetrievalService:
    """Raises ApiError 404 where experts.yaml has no retrieval."""
    if state.retrieval is None:
        raise ApiError(
            "this gateway serves no retrieval: its experts.yaml has no 'retrieval' section",
            status=404,
            code="retrieval_not_configured",
        )
    return state.retrieval


Service = Annotated[RetrievalService, Depends(retrieval_service)]


def vector_stores(service: Service) -> VectorStores:
    return service.stores


def owner_of(key_id: KeyId) -> str:
    """Whose files and stores the caller sees."""
    return key_id or ""


Stores = Annotated[VectorStores, Depends(vector_stores)]
Owner = Annotated[str, Depends(owner_of)]


def page_of(
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
    after: str | None = None,
    before: str | None = None,
) -> Page:
    return Page(limit, order == "asc", after, before)


ListPage = Annotated[Page, Depends(page_of)]


def begin(request: Request, state: GatewayState, kind: DecisionKind, model: str) -> RetrievalExchange:
    """The exchange of a request that gets a record."""
    headers = dict(request.scope["headers"])
    named = named_session(headers.get(b"x-session-id", b""))
    session = None if named is None else state.session_id(named)
    return exchange_for(kind, headers, request.scope.get("coe_key_id"), model[:MAX_MODEL_CHARS], session)


@asynccontextmanager
async def at_work(request: Request, state: GatewayState, service: RetrievalService) -> AsyncIterator[None]:
    """A block that runs as one of the gateway's requests, while its client is there and `retrieval.limits` allows.

    Raises:
        ApiError: 429 there are too many requests, 503 its rows could not be made safe now or the gateway stops, 504 it
            took too long.
        ClientGoneError: the client left; what the block waited for is given up.
    """
    limit_s = service.config.limits.timeout_s
    await state.check_log()
    try:
        async with ClientWatch(request.receive), asyncio.timeout(limit_s), state.admission:
            yield
    except TimeoutError as error:
        raise ApiError(
            f"the request took more than the {limit_s:g} s that are allowed; send fewer or shorter texts",
            status=504,
            code="retrieval_timeout",
        ) from error
    except asyncio.CancelledError:
        if not state.is_stopping:
            raise
        raise ApiError("the gateway is stopping", status=503, code="server_shutting_down", retry_after_s=1.0) from None


async def check_tokens(service: RetrievalService, texts: Sequence[str], param: str) -> list[int]:
    """The estimated tokens of each text. Raises ApiError 400 when they are too many together."""
    counts, allowed = await asyncio.to_thread(tokens_of, texts), service.config.limits.max_tokens
    if sum(counts) > allowed:
        raise invalid(f"'{param}' holds {sum(counts)} tokens; allowed: at most {allowed} in a request", param)
    return counts


def tokens_of(texts: Sequence[str]) -> list[int]:
    return [count_tokens(text) for text in texts]


async def finish(
    state: GatewayState,
    exchange: RetrievalExchange,
    outcomes: Sequence[Outcome],
    body: Callable[[], Mapping[str, object]],
) -> Response:
    """Writes the decisions down, then answers. The rows say `answered`, so the answer is made first: it might fail.

    Args:
        body: makes the answer, in a thread, because it may hold a million numbers.
    """
    headers = response_headers(exchange, outcomes)
    response = await asyncio.to_thread(lambda: answer(body(), headers))
    await state.retrieval_log.write(exchange, outcomes)
    return response


def answer(body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(dict(body)), media_type="application/json", headers=dict(headers or {}))


def decision_view(outcome: Outcome) -> dict[str, object]:
    """A decision as the answer tells it."""
    decision = outcome.decision
    return {
        "decision_id": outcome.decision_id,
        "expert": decision.expert,
        "members": list(decision.members),
        "reason": decision.reason.value,
        "why": why(decision),
        "similarity": decision.similarity,
    }
