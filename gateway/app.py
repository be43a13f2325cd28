"""The ASGI application: a bare handler for chat completions, FastAPI for the rest, one gate in front of both."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.asgi import ClientGoneError, Message, Receive, Scope, Send, must_close, read_body, send_error
from gateway.auth import is_loopback
from gateway.chat import ChatEndpoint
from gateway.exchange import CLIENT_GONE_STATUS, request_id_of
from gateway.http_errors import ApiError, api_error, invalid
from gateway.intake import Claim
from gateway.off_loop import read_off_loop
from gateway.origin_check import OriginCheck
from gateway.request_bodies import validation_error
from gateway.state import UPLOAD_PATH, GatewayState
from gateway.upload import received_upload
from gateway.wire import decode_json
from router.errors import RouterError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

CHAT_PATH = "/v1/chat/completions"
GUARDED = "/v1/"
OPEN_PATH = "/healthz"  # says nothing but that the process runs
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

logger = logging.getLogger(__name__)


class GatewayApp:
    """The application over a state that its owner starts and closes, for a server that listens on `bound_host`."""

    def __init__(self, state: GatewayState, bound_host: str = "127.0.0.1") -> None:
        limits = state.config.gateway
        self._state = state
        self._origin_check = OriginCheck(bound_host, limits.allowed_hosts, limits.allowed_origins)
        self._is_exposed = not is_loopback(bound_host)
        self._chat, self._rest = ChatEndpoint(state), create_rest(state)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"]
        try:
            self._origin_check.check(headers)
            needs_key = path.startswith(GUARDED) or (self._is_exposed and path != OPEN_PATH)
            scope["coe_key_id"] = self._state.auth.key_id(headers) if needs_key else None
            with self._state.intake.claim(*senders(scope)) as claim:
                await self._answer(scope, headers, claim, receive, send)
        except ClientGoneError:
            return
        except ApiError as error:
            await self._refuse(error, path, headers, send)

    async def _answer(
        self, scope: Scope, headers: Mapping[bytes, bytes], claim: Claim, receive: Receive, send: Send
    ) -> None:
        path, method, retrieval = scope["path"], scope["method"], self._state.retrieval
        if path == CHAT_PATH:
            if method != "POST":
                raise method_not_allowed(method, "POST")
            await self._chat(headers, scope["coe_key_id"], claim, receive, send)
            return
        max_bytes, body = self._state.max_body_bytes(path), b""
        if path == UPLOAD_PATH and method == "POST" and retrieval is not None:
            async with received_upload(headers, receive, max_bytes, retrieval.stores.incoming, claim) as upload:
                await serve_rest(self._rest, {**scope, "coe_upload": upload}, body, receive, send)
            return
        if method in WITH_BODY:
            body = await read_body(headers, receive, max_bytes, claim)
        await serve_rest(self._rest, scope, body, receive, send)

    async def _refuse(self, error: ApiError, path: str, headers: Mapping[bytes, bytes], send: Send) -> None:
        self._state.metrics.refusals.labels(str(error.status)).inc()
        extra = {"x-request-id": request_id_of(headers)}
        if must_close(headers, error, self._state.max_body_bytes(path)):
            extra["connection"] = "close"
        if error.status == 405:
            extra["allow"] = "POST"
        await send_error(send, error, extra)


def senders(scope: Scope) -> list[str]:
    """What the sender of a request is known by."""
    known = []
    if scope.get("client"):
        known.append(f"address:{network_of(scope['client'][0])}")
    if scope["coe_key_id"] is not None:
        known.append(f"key:{scope['coe_key_id']}")
    return known


def network_of(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: one customer has all of it."""
    if ":" not in address:
        return address
    return str(ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False))


async def serve_rest(rest: FastAPI, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """FastAPI, over a body that was read within the limit. Raises ApiError for one that is no JSON."""
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise invalid("the address holds a NUL character; allowed: any other")
    if body and scope["path"] != UPLOAD_PATH:
        await read_off_loop(decode_json, body)  # refuses what chat refuses, too; FastAPI reads it its own way
        # Chat takes a body as JSON whatever it is called, and `curl -d` calls it a form.
        others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        scope = {**scope, "headers": [*others, (b"content-type", b"application/json")]}
    if scope["method"] == "HEAD":
        scope, send = {**scope, "method": "GET"}, without_body(send)
    await rest(scope, replay(body, receive), send)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body read before, then what comes after it."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def without_body(send: Send) -> Send:
    """A `send` for HEAD: the head that GET would have, and nothing after it."""

    async def send_head_only(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head_only


def create_rest(state: GatewayState) -> FastAPI:
    """Everything but chat completions. The interactive docs stay off: their pages load scripts from elsewhere."""
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    from gateway.endpoints import (
        decisions,
        embeddings,
        feedback,
        files,
        health,
        metrics,
        models,
        rerank,
        route,
        vector_stores,
    )

    app = FastAPI(title="coe", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.gateway = state
    own = (models, route, decisions, feedback, health, metrics)
    for module in (*own, embeddings, rerank, files, vector_stores):
        app.include_router(module.api)

    async def on_router_error(request: Request, error: Exception) -> Response:
        return error_response(api_error(error) if isinstance(error, RouterError) else internal(state, error))

    async def on_validation(request: Request, error: Exception) -> Response:
        faults, body = (error.errors(), error.body) if isinstance(error, RequestValidationError) else ([], None)
        return error_response(validation_error(faults, body))

    async def on_http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status == 405:
            allowed = ", ".join(allowed_methods(app, request.scope))
            return error_response(method_not_allowed(request.method, allowed), {"allow": allowed})
        if status == 404:
            return error_response(ApiError(f"there is no {request.url.path[:100]} here", status=404, code="not_found"))
        return error_response(ApiError("the request is not valid", status=status, code="invalid_request"))

    async def on_client_gone(request: Request, error: Exception) -> Response:
        return error_response(ApiError("the client left", status=CLIENT_GONE_STATUS, code="client_gone"))

    async def on_fault(request: Request, error: Exception) -> Response:
        return error_response(internal(state, error))

    app.add_exception_handler(RouterError, on_router_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(ClientGoneError, on_client_gone)
    app.add_exception_handler(Exception, on_fault)
    return app


def allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """What a path takes. Starlette names the methods of one route only, and several may share a path."""
    from starlette.routing import Match

    def is_served(method: str) -> bool:
        return any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)

    served = [method for method in METHODS if is_served(method)]
    return ["HEAD", *served] if "GET" in served else served  # HEAD is answered as GET


def error_response(error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
    from starlette.responses import Response

    all_headers = {"content-type": "application/json", **error.headers, **(headers or {})}
    return Response(error.body, error.status, all_headers)


def method_not_allowed(method: str, allowed: str) -> ApiError:
    return ApiError(
        f"method {method[:16]} is not allowed here; allowed: {allowed}", status=405, code="method_not_allowed"
    )


def internal(state: GatewayState, error: Exception) -> ApiError:
    """An unforeseen error: counted, and named by type only, because its text may hold prompt text."""
    state.metrics.faults.inc()
    logger.error("an endpoint met an unforeseen %s", type(error).__name__)
    return ApiError("internal error", status=500, code="internal_error")
