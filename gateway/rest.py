"""Everything but chat completions, on FastAPI."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from base.errors import RouterError
from gateway.asgi import Message, Receive, Scope, Send, error_answer, read_off_loop, replay
from gateway.chat_request import decode_json
from gateway.endpoints import (
    admin,
    batches,
    decisions,
    embeddings,
    evaluations,
    experts,
    feedback,
    files,
    health,
    models,
    rerank,
    route,
    routers,
    spend,
    vector_stores,
)
from gateway.exchange import request_id_of
from gateway.http_errors import ApiError, ClientGoneError, api_error, invalid, method_not_allowed
from gateway.metrics import Metrics
from gateway.request_bodies import validation_error

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MODULES = (
    models,
    route,
    decisions,
    feedback,
    evaluations,
    health,
    embeddings,
    rerank,
    files,
    batches,
    vector_stores,
    admin,
    routers,
    experts,
    spend,
)
ROOTS = frozenset(
    "/".join(route.path.split("/")[:3])
    for module in MODULES
    for route in module.api.routes
    if isinstance(route, APIRoute)
)
"""Paths that are served, to their second part: names of traces without the ids in them."""


def create_rest(parts: Mapping[str, object], counted: Metrics) -> FastAPI:
    """The application over parts that endpoints ask for by name. The interactive docs stay off: their pages load
    scripts from elsewhere."""
    app = FastAPI(title="coe", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    for name, part in parts.items():
        setattr(app.state, name, part)
    for module in MODULES:
        app.include_router(module.api)

    async def on_error(request: Request, error: Exception) -> Any:
        request_id = request_id_of(dict(request.scope["headers"]))
        found = api_error(framework_error(app, request, error), request_id=request_id)
        counted.failed(found)
        return error_answer(found)

    for kind in (RouterError, RequestValidationError, HTTPException, ClientGoneError, Exception):
        app.add_exception_handler(kind, on_error)
    return app


def framework_error(app: FastAPI, request: Request, error: Exception) -> Exception:
    """An error that FastAPI raised, as one of ours; others as they are."""
    if isinstance(error, RequestValidationError):
        return validation_error(error.errors(), error.body)
    if not isinstance(error, HTTPException):
        return error
    if error.status_code == 405:
        return method_not_allowed(request.method, ", ".join(allowed_methods(app, request.scope)))
    if error.status_code == 404:
        return ApiError(f"there is no {request.url.path[:100]} here", status=404, code="not_found")
    return ApiError("the request is not valid", status=error.status_code, code="invalid_request")


def allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that a path takes. Starlette names those of one route only, and several may share a path."""

    def is_served(method: str) -> bool:
        return any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)

    served = [method for method in METHODS if is_served(method)]
    return ["HEAD", *served] if "GET" in served else served  # HEAD is answered as GET


async def serve_rest(rest: FastAPI, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Answers a request whose body was read within the limit; an upload's is in the scope.

    Raises:
        ApiError: the body is not JSON, or the address holds a NUL character.
    """
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise invalid("the address holds a NUL character; allowed: any other")
    if body:
        # Chat takes a body as JSON whatever it is called, and `curl -d` calls it a form.
        others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        value = await read_off_loop(decode_json, body)
        scope = {**scope, "headers": [*others, (b"content-type", b"application/json")], "coe_json": value}
    if scope["method"] == "HEAD":
        scope, send = {**scope, "method": "GET"}, without_body(send)
    with suppress(Exception):  # `on_error` has answered it; starlette raises it again so that a server can log it
        await rest(scope, replay(body, receive), send)


def without_body(send: Send) -> Send:
    """A `send` for HEAD: the head that GET would have, and nothing after it."""

    async def send_head_only(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head_only
