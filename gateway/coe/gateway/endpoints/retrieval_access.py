"""Dependencies of the retrieval endpoints, and the way they answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Query, Request
from starlette.responses import Response

from coe.decision_log.decision_record import DecisionKind
from coe.decision_log.privacy import named_session
from coe.decision_log.sink import DecisionLog
from coe.gateway.admission import ConcurrencyLimit
from coe.gateway.asgi import ClientWatch
from coe.gateway.endpoints.access import Owner, answer, part
from coe.gateway.exchange import MAX_MODEL_CHARS, request_id_of
from coe.gateway.http_errors import ApiError, ClientGoneError, api_error, invalid
from coe.gateway.keys.counters import NOTHING, Cost, nano_usd
from coe.gateway.keys.grants import Caller
from coe.gateway.keys.limits import Limits
from coe.gateway.retrieval.log import Outcome, RetrievalExchange, RetrievalLog, response_headers
from coe.retrieval.routing.query_routing import why
from coe.retrieval.service import RetrievalService, VectorStores
from coe.retrieval.stores.cutting import count_tokens
from coe.retrieval.stores.paging import Page
from coe.retrieval.stores.store_records import VectorStore
from coe.retrieval.types import RetrievalDecision
from coe.router.retrieval_config import MAX_REQUEST_TOKENS, REQUEST_TIMEOUT_S, RetrievalConfig


async def retrieval_service(found: Annotated[RetrievalService | None, part("retrieval")]) -> RetrievalService:
    """Raises ApiError 404 where experts.yaml has no retrieval."""
    if found is None:
        raise ApiError(
            "this gateway serves no retrieval: its experts.yaml has no 'retrieval' section",
            status=404,
            code="retrieval_not_configured",
        )
    return found


Service = Annotated[RetrievalService, Depends(retrieval_service)]


async def vector_stores(service: Service) -> VectorStores:
    return service.stores


Stores = Annotated[VectorStores, Depends(vector_stores)]


async def own_store(store_id: str, stores: Stores, owner: Owner) -> VectorStore:
    """Raises RequestError 404 for a store that another team made."""
    return await stores.store(owner, store_id)


OwnStore = Annotated[VectorStore, Depends(own_store)]


async def page_of(
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
    before: str | None = None,
) -> Page:
    return Page(limit, order == "asc", after, before)


ListPage = Annotated[Page, Depends(page_of)]


@dataclass
class Bill:
    """The experts that read the texts of a request; None until that is known."""

    readers: frozenset[str] | None = None

    def read_by(self, decisions: Iterable[RetrievalDecision]) -> None:
        self.readers = frozenset(name for decision in decisions for name in decision.members)

    def cost(self, config: RetrievalConfig, tokens: int) -> Cost:
        """Price that caps count; the most while the readers are not known."""
        return Cost(tokens, nano_usd(config.micro_usd(tokens, self.readers)))


@dataclass(frozen=True)
class RetrievalDesk:
    """The frame around a retrieval request that gets a record: limits before it, the log after it. `session_id` gives
    a conversation its name in the log."""

    log: RetrievalLog
    sink: DecisionLog
    concurrency: ConcurrencyLimit
    is_stopping: Callable[[], bool]
    session_id: Callable[[str, str], str]
    limits: Limits

    def begin(self, request: Request, kind: DecisionKind, model: str) -> RetrievalExchange:
        headers = dict(request.scope["headers"])
        named = named_session(headers)
        caller: Caller = request.state.caller
        session = None if named is None else self.session_id(named, caller.tenant)
        watch = request.state.watch
        return RetrievalExchange(kind, request_id_of(headers), caller.key_id, model[:MAX_MODEL_CHARS], session, watch)

    @asynccontextmanager
    async def at_work(self, request: Request, config: RetrievalConfig, tokens: int) -> AsyncIterator[Bill]:
        """A block that runs as one of the gateway's requests, while its client is there and for at most the time that
        the configuration allows. It has to say in the bill who read the texts.

        Args:
            tokens: of its texts, as they count for caps.

        Raises:
            ApiError: 429 there are too many requests, of its key or of all, 503 the gateway stops or cannot count,
                504 it took too long.
            StoreError: its rows could not be made safe now.
            ClientGoneError: the client left; what the block waited for is given up.
        """
        self.sink.check()
        bill, limit_s = Bill(), REQUEST_TIMEOUT_S
        hold = await self.limits.reserve(request.state.caller, bill.cost(config, tokens))
        spent, most = NOTHING, NOTHING
        try:
            with ClientWatch(request.state.peer):
                async with asyncio.timeout(limit_s), self.concurrency:
                    most = bill.cost(config, tokens)
                    yield bill
            spent = bill.cost(config, tokens)
        except ClientGoneError:
            spent = most  # the texts may have been read
            raise
        except TimeoutError as error:
            spent = most
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
            hold.settle(spent)

    async def finish(
        self, exchange: RetrievalExchange, outcomes: Sequence[Outcome], body: Callable[[], dict[str, object]]
    ) -> Response:
        """Writes the decisions down, then answers. The rows say `answered`, so the answer is made first: it might fail.

        Args:
            body: makes the answer, in a thread, because it may hold a million numbers.
        """
        headers = response_headers(exchange, outcomes)
        response = await asyncio.to_thread(lambda: answer(body(), headers))
        await self.log.write(exchange, outcomes)
        return response


Desk = Annotated[RetrievalDesk, part("retrieval_desk")]


async def check_tokens(service: RetrievalService, texts: Sequence[str], param: str) -> list[int]:
    """The estimated tokens of each text. Raises ApiError 400 when they are too many together."""
    counts = await asyncio.to_thread(lambda: [count_tokens(text) for text in texts])
    allowed = MAX_REQUEST_TOKENS
    if sum(counts) > allowed:
        raise invalid(f"'{param}' holds {sum(counts)} tokens; allowed: at most {allowed} in a request", param)
    return counts


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
