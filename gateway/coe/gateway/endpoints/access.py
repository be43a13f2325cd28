"""The parts and facts that an endpoint can ask for by its parameters, and the router that endpoints are added to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, TypeVar, cast

from fastapi import APIRouter, Depends, Query, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from coe.base.errors import RequestError
from coe.base.fault_words import WORDS, fault_words
from coe.base.json_text import to_json
from coe.decision_log.database import Database
from coe.gateway.batches.batch_store import BatchStore
from coe.gateway.http_errors import ApiError, invalid
from coe.gateway.keys.grants import Caller
from coe.retrieval.service import RetrievalService, VectorStores
from coe.retrieval.stores.files import Files
from coe.retrieval.stores.paging import Page
from coe.retrieval.stores.store_records import VectorStore
from coe.router.config.composition import CoeConfig

T = TypeVar("T")
SCANNERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="coe-scan")


def part(name: str) -> Any:
    """A dependency on the part of the gateway that gateway/app.py hands over by that name."""

    async def found(request: Request) -> object:
        return getattr(request.app.state, name)

    return Depends(found)


async def caller_of(request: Request) -> Caller:
    """The caller as gateway/app.py found it."""
    return cast(Caller, request.state.caller)


async def owner_of(caller: Annotated[Caller, Depends(caller_of)]) -> str:
    """The name of whose files, stores and batches the caller sees."""
    return caller.tenant


async def batch_store(found: Annotated[BatchStore | None, part("batches")]) -> BatchStore:
    """Raises RequestError 503 where this gateway keeps none."""
    if found is None:
        raise RequestError("this gateway has no database, so it keeps no files", status=503, code="files_unavailable")
    return found


async def kept_files(batches: Annotated[BatchStore, Depends(batch_store)]) -> Files:
    return batches.files


Config = Annotated[CoeConfig, part("config")]
LogDatabase = Annotated[Database, part("database")]
CallerOf = Annotated[Caller, Depends(caller_of)]
Owner = Annotated[str, Depends(owner_of)]
Batches = Annotated[BatchStore, Depends(batch_store)]
KeptFiles = Annotated[Files, Depends(kept_files)]


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


async def scan(work: Callable[[], T]) -> T:
    """The result of a search through many rows of the log. Searches wait for each other, and nobody else for them."""
    return await asyncio.get_running_loop().run_in_executor(SCANNERS, work)


class DecodedRequest(Request):
    """A request whose body gateway/app.py has decoded within bounds: it is not decoded again."""

    async def json(self) -> Any:
        return self.state.json


class DecodedRoute(APIRoute):
    """A route that validates what was decoded."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def with_decoded(request: Request) -> Response:
            return await handle(DecodedRequest(request.scope, request.receive))

        return with_decoded


def api_router(prefix: str = "") -> APIRouter:
    """A router for the endpoints of one file."""
    return APIRouter(prefix=prefix, route_class=DecodedRoute)


def answer(body: dict[str, object], headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is not validated again."""
    return Response(to_json(body), media_type="application/json", headers=headers)


def validation_error(faults: Sequence[Any], body: object) -> ApiError:
    """The first fault with its field. Values may be prompt text and are not repeated.

    Of a union every branch that was tried has a fault; the one that got furthest is the one that was meant.
    """
    if not faults:
        return invalid("the body is not valid")
    paths = [path_of(fault, body) for fault in faults]
    same_field = [place for place, path in enumerate(paths) if path[:1] == paths[0][:1]]
    place = max(same_field, key=lambda each: len(paths[each]))
    fault, path = faults[place], written(paths[place])
    if fault["type"] == "json_invalid":
        return invalid("the body is not valid JSON", code="invalid_json")
    return invalid(f"'{path or 'body'}': {message_of(fault)}", path or None)


def message_of(fault: Mapping[str, Any]) -> str:
    """The fault in our words, without the value."""
    if fault["type"] == "union_tag_not_found":
        return WORDS["missing"]
    if fault["type"] == "union_tag_invalid":
        return f"must be one of {fault['ctx']['expected_tags']}"
    return fault_words(fault)


def path_of(fault: Mapping[str, Any], body: object) -> tuple[str | int, ...]:
    """The place of a fault in the request. Names that pydantic gives the branches of a union are not in the body."""
    if fault["type"] == "json_invalid":
        return ()
    where, *parts = fault["loc"]
    if where != "body":
        return tuple(parts)
    kept: list[str | int] = []
    value: Any = body
    for place, part in enumerate(parts):
        if holds(value, part):
            kept.append(part)
            value = value[part]
        elif fault["type"] == "missing" and place == len(parts) - 1:
            kept.append(part)
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kept.append(fault["ctx"]["discriminator"].strip("'"))
    return tuple(kept)


def holds(value: object, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, Mapping) and part in value


def written(path: Sequence[str | int]) -> str:
    """The path of a field as chat errors write it: `texts[0].filename`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
