"""The endpoints on FastAPI: all but chats and `status.py`. A gateway loads them at the first request for one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from inspect import Signature, signature
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.routing import Match

from coe.base.errors import RouterError
from coe.gateway.endpoints import (
    admin,
    batches,
    decisions,
    embeddings,
    experts,
    feedback,
    files,
    rerank,
    route,
    search,
    spend,
    vector_stores,
)
from coe.gateway.endpoints.access import validation_error
from coe.gateway.endpoints.retrieval_exchange import RetrievalDesk
from coe.gateway.endpoints.status import PLAIN, Plain
from coe.gateway.http.asgi import (
    Application,
    Arrival,
    Message,
    Scope,
    Send,
    decode_json,
    error_answer,
    read_off_loop,
    replay,
)
from coe.gateway.http_errors import ApiError, ClientGoneError, api_error, invalid, method_not_allowed, not_here
from coe.gateway.parts import Parts

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MODULES = (
    route,
    decisions,
    feedback,
    embeddings,
    rerank,
    files,
    batches,
    vector_stores,
    search,
    admin,
    experts,
    spend,
)


def create_rest(parts: Parts) -> FastAPI:
    """The application over parts that endpoints ask for by name (gateway/endpoints/access.py). The interactive docs
    stay off: their pages load scripts from elsewhere."""
    app = FastAPI(title="coe", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    desk = RetrievalDesk(
        parts.sink,
        parts.metrics,
        parts.concurrency,
        parts.limits,
        parts.decider.session_id,
        lambda: parts.is_stopping,
        parts.config.log.embeddings,
    )
    app.state = State(vars(parts) | {"retrieval_desk": desk, "standing": parts.standing})
    for path, plain in PLAIN.items():
        app.add_api_route(path, described(plain), response_model=plain.model)
    for module in MODULES:
        app.include_router(module.api)

    async def on_error(request: Request, error: Exception) -> Any:
        found = api_error(framework_error(app, request, error), request_id=request.state.request_id)
        parts.metrics.failed(found)
        return error_answer(found)

    for kind in (RouterError, RequestValidationError, HTTPException, ClientGoneError, Exception):
        app.add_exception_handler(kind, on_error)
    return app


def described(plain: Plain) -> Callable[[], None]:
    """An endpoint for `/openapi.json` alone: gateway/app.py answers its path without FastAPI."""

    @wraps(plain.answer)
    def endpoint() -> None:
        raise NotImplementedError

    _, _, *named = signature(plain.answer).parameters.values()
    endpoint.__signature__ = Signature(named)  # type: ignore[attr-defined]
    return endpoint


def framework_error(app: FastAPI, request: Request, error: Exception) -> Exception:
    """An error that FastAPI raised, as one of ours; others as they are."""
    if isinstance(error, RequestValidationError):
        return validation_error(error.errors(), error.body)
    if not isinstance(error, HTTPException):
        return error
    if error.status_code == 405:
        return method_not_allowed(request.method, ", ".join(allowed_methods(app, request.scope)))
    if error.status_code == 404:
        return not_here(request.url.path)
    return ApiError("the request is not valid", status=error.status_code, code="invalid_request")


def allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that a path takes. Starlette names those of one route only, and several may share a path."""

    def is_served(method: str) -> bool:
        return any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)

    served = [method for method in METHODS if is_served(method)]
    return ["HEAD", *served] if "GET" in served else served  # HEAD is answered as GET


async def serve_rest(rest: Application, arrival: Arrival, body: bytes, **known: object) -> None:
    """Answers a request whose body was read within the limit.

    Endpoints find in their request's `state` its `request_id`, `caller`, `peer` and `watch`, its body as `json`, and
    what else is `known`.

    Raises:
        ApiError: the body is not JSON, or the address holds a NUL character.
    """
    scope = arrival.scope
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise invalid("the address holds a NUL character; allowed: any other")
    named = {name: getattr(arrival, name) for name in ("request_id", "caller", "peer", "watch")}
    state, headers = {**named, "json": None, **known}, dict(arrival.headers)
    if body and not headers.get(b"content-type", b"").startswith(b"multipart/"):
        # Chat takes a body as JSON whatever it is called, and `curl -d` calls it a form. A file for an endpoint that is
        # not there should hear that.
        state["json"] = await read_off_loop(decode_json, body)
        headers[b"content-type"] = b"application/json"
    scope = {**scope, "state": state, "headers": list(headers.items())}
    with suppress(Exception):  # `on_error` has answered it; starlette raises it again so that a server can log it
        await rest(scope, replay(body, arrival.receive), with_request_id(arrival.send, arrival.request_id.encode()))


def with_request_id(send: Send, request_id: bytes) -> Send:
    """A `send` by which every answer has the id of its request."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start" and b"x-request-id" not in dict(message["headers"]):
            message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
        await send(message)

    return named
