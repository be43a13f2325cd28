"""The ASGI application: a bare handler for chats on every surface, FastAPI for the rest, one gate in front of both."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from base.errors import RouterError
from gateway.asgi import (
    IS_HERE,
    Message,
    Receive,
    Scope,
    Send,
    decode_json,
    error_answer,
    must_close,
    read_body,
    read_off_loop,
    replay,
    send_body,
)
from gateway.auth import OriginCheck
from gateway.chat import ChatEndpoint
from gateway.chat_limits import ChatLimits
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
from gateway.endpoints.access import validation_error
from gateway.endpoints.retrieval_access import RetrievalDesk
from gateway.exchange import request_id_of
from gateway.http_errors import ApiError, ClientGoneError, api_error, invalid, method_not_allowed
from gateway.intake import Claim
from gateway.keys.grants import EVERYBODY, Caller
from gateway.listener import is_loopback
from gateway.metrics import Metrics
from gateway.parts import Parts
from gateway.retrieval.attachment import most_added_chars
from gateway.strategy_run import StrategyRun
from gateway.surfaces.completions import CompletionsSurface
from gateway.surfaces.count_tokens import COUNT_PATH, TokenCount
from gateway.surfaces.messages import MessagesSurface
from gateway.surfaces.responses import ResponsesSurface
from gateway.surfaces.surface import Surface
from gateway.telemetry.otlp import is_protobuf, read_logs
from gateway.upload import PURPOSES, max_file_bytes, received_upload

if TYPE_CHECKING:
    from gateway.console.app import Console

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

LOGS_PATH, UPLOAD_PATH = "/v1/logs", "/v1/files"
STORE_PATHS = ("/v1/files", "/v1/vector_stores")
CONSOLE_PATH = "/console"
UPLOAD_FRAME_BYTES = 64 * 1024  # of a multipart body around its file
GUARDED = "/v1/"
OPEN_PATH = "/healthz"  # reveals only that the process runs
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
REST_PARTS = (
    *("batches", "cache", "config", "decider", "live", "live_config", "metrics", "pool", "readiness", "retrieval"),
    *("siblings", "sink", "database", "telemetry"),
)
CHAT = Surface()
SURFACES: dict[str, Surface] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": ResponsesSurface(),
    "/v1/messages": MessagesSurface(),
    "/v1/completions": CompletionsSurface(),
}
ROUTES = ROOTS | {COUNT_PATH, *SURFACES}


class GatewayApp:
    """The application of a server that listens on `bound_host`; the owner of its parts starts and closes them."""

    def __init__(self, parts: Parts, bound_host: str = "127.0.0.1") -> None:
        limits = parts.config.gateway
        self._auth, self._intake, self._metrics = parts.auth, parts.intake, parts.metrics
        self._files = None if parts.batches is None else parts.batches.files
        self._siblings, self._telemetry = parts.siblings, parts.telemetry
        self._max_body_bytes = limits.max_body_bytes
        most = max(max_file_bytes(purpose, parts.config) for purpose in PURPOSES)
        self._max_upload_bytes = most + UPLOAD_FRAME_BYTES
        self._origin_check = OriginCheck(bound_host, limits.allowed_hosts, limits.allowed_origins)
        self._is_exposed = not is_loopback(bound_host)
        entries = parts.chat_log.served.entries
        self._chat = ChatEndpoint(
            parts.decider,
            parts.experts,
            partial(StrategyRun, parts.experts, entries),
            parts.chat_log,
            ChatLimits(limits, parts.admission, parts.limits, entries, most_added_chars(parts.config.retrieval)),
            enricher=parts.attachments,
            judge=parts.judge,
        )
        self._count = TokenCount(limits, parts.decider, parts.pool, parts.config.experts)
        self._rest = create_rest(rest_parts(parts), parts.metrics)
        self._has_console, self._hash_key, self._data_dir = limits.console, parts.hash_key, parts.live.folder.parent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"]
        watch = scope["coe_watch"] = None if self._telemetry is None else self._telemetry.follow(scope, headers, ROUTES)
        if watch is not None:
            send = watch.watching(send)
        try:
            self._origin_check.check(headers)
            needs_key = path.startswith(GUARDED) or (self._is_exposed and path != OPEN_PATH and not self._is_page(path))
            if "coe_caller" not in scope:  # the gateway asks lines of batches itself
                scope["coe_caller"] = await self._auth.caller(headers) if needs_key else EVERYBODY
            with self._intake.claim(*senders(scope), is_here=IS_HERE in scope) as claim:
                await self._answer(scope, headers, claim, receive, send)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001
            await self._refuse(error, path, headers, send)
        finally:
            if watch is not None:
                watch.close()

    async def _answer(
        self, scope: Scope, headers: Mapping[bytes, bytes], claim: Claim, receive: Receive, send: Send
    ) -> None:
        path, method = scope["path"], scope["method"]
        if (path in SURFACES or path == COUNT_PATH) and method != "POST":
            raise method_not_allowed(method, "POST")
        if path in SURFACES:
            await self._chat(SURFACES[path], scope, headers, claim, receive, send)
            return
        if path == COUNT_PATH:
            await self._count(scope["coe_caller"], headers, claim, receive, send)
            return
        if self._siblings.store_owner is not None and path.startswith(STORE_PATHS):
            await self._siblings.forward(self._siblings.store_owner, scope, receive, send)
            return
        body = b""
        if path == UPLOAD_PATH and method == "POST" and self._files is not None:
            async with received_upload(headers, receive, self._max_upload_bytes, self._files.incoming, claim) as upload:
                await serve_rest(self._rest, {**scope, "coe_upload": upload}, body, receive, send)
            return
        if path == LOGS_PATH and method == "POST":
            scope = {**scope, "coe_is_protobuf": is_protobuf(headers)}
            body = await read_logs(headers, receive, self._max_body_bytes, claim)
        elif method in WITH_BODY:
            body = await read_body(headers, receive, self._max_body_bytes, claim)
        if self._is_page(path):
            await self._console(scope, headers, replay(body, receive), send)
            return
        await serve_rest(self._rest, scope, body, receive, send)

    def _is_page(self, path: str) -> bool:
        """Returns True for a page of the console, which asks for keys in a form of its own."""
        return self._has_console and f"{path}/".startswith(f"{CONSOLE_PATH}/")

    @cached_property
    def _console(self) -> Console:
        """Imported when somebody opens it: most gateways need no templates."""
        from gateway.console.app import Console

        return Console(self, self._auth, self._hash_key, self._data_dir)

    def max_body_bytes(self, path: str) -> int:
        """The size that a body may have: uploads have a limit of their own."""
        return self._max_upload_bytes if path == UPLOAD_PATH else self._max_body_bytes

    async def _refuse(self, failure: Exception, path: str, headers: Mapping[bytes, bytes], send: Send) -> None:
        """Answers a request that did not get to an endpoint."""
        request_id = request_id_of(headers)
        error = api_error(failure, request_id=request_id)
        self._metrics.failed(error)
        self._metrics.refusals.labels(str(error.status)).inc()
        extra = {"x-request-id": request_id}
        if must_close(headers, error, self.max_body_bytes(path)):
            extra["connection"] = "close"
        await send_body(send, error.status, surface_of(path).error(error), extra | error.headers)


def rest_parts(parts: Parts) -> dict[str, object]:
    """The parts that endpoints may ask for, by the names in gateway/endpoints/access.py."""
    desk = RetrievalDesk(
        parts.retrieval_log, parts.sink, parts.admission, parts.readiness, parts.decider.session_id, parts.limits
    )
    return {name: getattr(parts, name) for name in REST_PARTS} | {"retrieval_desk": desk}


def senders(scope: Scope) -> list[str]:
    """The names that the sender of a request is known by."""
    known = []
    if scope.get("client"):
        known.append(f"address:{network_of(scope['client'][0])}")
    caller: Caller = scope["coe_caller"]
    if caller.key_id is not None:
        known.append(f"key:{caller.key_id}")
    return known


def network_of(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: one customer has all of it."""
    if ":" not in address:
        return address
    return str(ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False))


def surface_of(path: str) -> Surface:
    """The surface that a path belongs to; that of chats for any other path."""
    return SURFACES.get(path.removesuffix("/count_tokens"), CHAT)


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
