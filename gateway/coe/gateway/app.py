"""The ASGI application: bare handlers for chats in every API and for what many ask, FastAPI for the rest, and one
gate in front of all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from coe.gateway.chat.adapters.adapter import Adapter
from coe.gateway.chat.adapters.completions import CompletionsAdapter
from coe.gateway.chat.adapters.count_tokens import COUNT_PATH, TokenCount
from coe.gateway.chat.adapters.messages import MessagesAdapter
from coe.gateway.chat.adapters.responses import ResponsesAdapter
from coe.gateway.chat.chat import ChatEndpoint
from coe.gateway.chat.limits import ChatLimits
from coe.gateway.chat.strategy_run import StrategyRun
from coe.gateway.endpoints.status import MODELS, answer_of
from coe.gateway.http.admission import Admission, senders
from coe.gateway.http.asgi import (
    BODY,
    EXTENSIONS,
    PEER,
    Application,
    Arrival,
    Peer,
    Receive,
    Scope,
    Send,
    error_answer,
    must_close,
    read_body,
    replay,
    request_id_of,
    send_body,
    without_body,
)
from coe.gateway.http.auth import OriginCheck
from coe.gateway.http.listener import is_loopback
from coe.gateway.http_errors import ClientGoneError, api_error, method_not_allowed, not_here, shutting_down
from coe.gateway.keys.grants import EVERYBODY, Caller

if TYPE_CHECKING:
    from coe.gateway.console.app import Console
    from coe.gateway.parts import Parts

T = TypeVar("T")

UPLOAD_PATH = "/v1/files"
CONSOLE_PATH = "/console"
UPLOAD_FRAME_BYTES = 64 * 1024  # of a multipart body around its file
GUARDED = "/v1/"
OPEN_PATH = "/healthz"  # reveals only that the process runs
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
REFUSAL = error_answer(shutting_down(), {"connection": "close"})
CHAT = Adapter()
ADAPTERS: dict[str, Adapter] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": ResponsesAdapter(),
    "/v1/messages": MessagesAdapter(),
    "/v1/completions": CompletionsAdapter(),
}
REST_PATHS = frozenset(
    (
        *("/openapi.json", "/v1/admin", "/v1/batches", "/v1/decisions", "/v1/embeddings", "/v1/experts"),
        *("/v1/feedback", "/v1/files", "/v1/rerank", "/v1/route", "/v1/spend", "/v1/vector_stores"),
    )
)
"""Paths of gateway/endpoints/fastapi_app.py, to their second part: written out so that no other path loads it."""

ROUTES = REST_PATHS | {COUNT_PATH, MODELS, *ADAPTERS}
"""Names of traces, without the ids in them."""


class GatewayApp:
    """The application of a server that listens on `bound_host`; the owner of its parts starts and closes them.

    `running` counts the requests that it answers now; `is_over` is set behind the last of them after `end`.
    """

    def __init__(self, parts: Parts, bound_host: str) -> None:
        limits = parts.config.gateway
        self.parts = parts
        self.running, self.must_end, self.is_over = 0, False, asyncio.Event()
        self._auth, self._body_limits, self._metrics = parts.auth, parts.body_limits, parts.metrics
        self._files = None if parts.batches is None else parts.batches.files
        self._telemetry = parts.telemetry
        self._max_body_bytes = limits.max_body_bytes
        self._origin_check = OriginCheck(bound_host, limits.allowed_hosts, limits.allowed_origins)
        self._is_exposed = not is_loopback(bound_host)
        entries = parts.chat_log.served.entries
        self._chat = ChatEndpoint(
            parts.decider,
            parts.experts,
            partial(StrategyRun, parts.experts, entries),
            parts.chat_log,
            limits,
            parts.concurrency,
            ChatLimits(parts.limits, entries),
            judge=parts.judge,
        )
        self._count = TokenCount(ADAPTERS["/v1/messages"], limits, parts.decider, parts.pool, parts.config.experts)
        self._loading: dict[str, asyncio.Task[Any]] = {}
        self._has_console, self._hash_key = limits.console, parts.hash_key

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, caller: Caller | None = None, *, is_batch: bool = False
    ) -> None:
        """Answers a request.

        Args:
            caller: in whose name the gateway asks itself; None: the request says it.
            is_batch: it is a line of a batch.
        """
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"]
        request_id = request_id_of(headers)
        watch = None if self._telemetry is None else self._telemetry.follow(scope, headers, ROUTES)
        if watch is not None:
            send = watch.watching(send)
        try:
            self._origin_check.check(headers)
            if caller is None:
                caller = await self._auth.caller(headers) if self._needs_key(path) else EVERYBODY
            extensions = scope.get(EXTENSIONS) or {}
            with Admission(
                self._body_limits, *senders(scope.get("client"), caller.key_id), is_here=BODY in extensions
            ) as admission:
                peer = extensions.get(PEER) or Peer()
                await self._answer(
                    Arrival(scope, headers, request_id, receive, send, caller, peer, admission, watch, is_batch)
                )
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001
            await self._refuse(error, path, headers, request_id, send)
        finally:
            if watch is not None:
                watch.close()

    def _needs_key(self, path: str) -> bool:
        return path.startswith(GUARDED) or (
            self._is_exposed and path.removesuffix("/") != OPEN_PATH and not self._is_page(path)
        )

    async def _answer(self, arrival: Arrival) -> None:
        scope, send = arrival.scope, arrival.send
        path, method = scope["path"], scope["method"]
        if (path in ADAPTERS or path == COUNT_PATH) and method != "POST":
            raise method_not_allowed(method, "POST")
        if path in ADAPTERS:
            await self._chat(ADAPTERS[path], arrival)
            return
        if path == COUNT_PATH:
            await self._count(arrival)
            return
        if method == "HEAD":
            scope, method, send = {**scope, "method": "GET"}, "GET", without_body(send)
            arrival = arrival._replace(scope=scope, send=send)
        if "/".join(path.split("/")[:3]) in REST_PATHS or self._is_page(path):
            await self._ask_rest(arrival)
            return
        if (answer := answer_of(path)) is None:
            raise not_here(path)
        if method != "GET":
            raise method_not_allowed(method, "HEAD, GET")
        reply = await answer(self.parts, arrival.caller)
        await send_body(send, reply.status, reply.body, {"x-request-id": arrival.request_id}, reply.content_type)

    async def _ask_rest(self, arrival: Arrival) -> None:
        scope, headers, receive, admission = arrival.scope, arrival.headers, arrival.receive, arrival.admission
        path, method = scope["path"], scope["method"]
        if path == "/":
            if method != "GET":
                raise method_not_allowed(method, "HEAD, GET")
            await send_body(arrival.send, 303, b"", {"location": CONSOLE_PATH})
            return
        if path == UPLOAD_PATH and method == "POST" and self._files is not None:
            rest = await self.rest()  # which loads what reads a form, too
            from coe.gateway.endpoints.fastapi_app import serve_rest
            from coe.gateway.http.upload import received_upload

            async with received_upload(
                headers, receive, self._max_upload_bytes, self._files.incoming, admission
            ) as upload:
                await serve_rest(rest, arrival, b"", upload=upload)
            return
        body = await read_body(headers, receive, self._max_body_bytes, admission) if method in WITH_BODY else b""
        rest = await self.rest()  # which pages ask, too
        if self._is_page(path):
            console = await self._loaded("console", self._open_console)
            await console(scope, headers, replay(body, receive), arrival.send)
            return
        from coe.gateway.endpoints.fastapi_app import serve_rest

        await serve_rest(rest, arrival, body)

    def end(self) -> None:
        """Sets `is_over` once no request runs; none may begin from now on."""
        self.must_end = True
        if not self.running:
            self.is_over.set()

    async def rest(self) -> Application:
        """The endpoints on FastAPI: 9 MiB, and a quarter of a second."""
        return await self._loaded("rest", partial(load_rest, self.parts))

    async def _loaded(self, name: str, load: Callable[[], T]) -> T:
        """Runs `load` once, in a thread, when a request first needs its result; chats continue meanwhile. After a
        failure, such as too many open files, the next request tries again."""
        loading = self._loading.get(name)
        if loading is None:
            loading = self._loading[name] = asyncio.create_task(asyncio.to_thread(load), name=f"load-{name}")
        try:
            return cast(T, await asyncio.shield(loading))
        except Exception:
            if self._loading.get(name) is loading:
                del self._loading[name]
            raise

    def _is_page(self, path: str) -> bool:
        """Returns True for a page of the console, which asks for keys in a form of its own, and for the way there."""
        return self._has_console and (path == "/" or f"{path}/".startswith(f"{CONSOLE_PATH}/"))

    def _open_console(self) -> Console:
        """Imports it only now: most gateways need no templates."""
        from coe.gateway.console.app import Console

        return Console(self, self._auth, self._hash_key)

    @cached_property
    def _max_upload_bytes(self) -> int:
        from coe.gateway.http.upload import PURPOSES, max_file_bytes

        return max(max_file_bytes(purpose, self.parts.config) for purpose in PURPOSES) + UPLOAD_FRAME_BYTES

    async def _refuse(
        self, failure: Exception, path: str, headers: Mapping[bytes, bytes], request_id: str, send: Send
    ) -> None:
        """Answers a request that did not get to an endpoint."""
        error = api_error(failure, request_id=request_id)
        self._metrics.failed(error)
        self._metrics.refusals.labels(str(error.status)).inc()
        extra = {"x-request-id": request_id}
        if path.startswith("/v1/messages"):
            extra["request-id"] = request_id
        max_bytes = self._max_upload_bytes if path == UPLOAD_PATH else self._max_body_bytes
        if must_close(headers, error, max_bytes):
            extra["connection"] = "close"
        adapter = ADAPTERS.get(path.removesuffix("/count_tokens"), CHAT)
        await send_body(send, error.status, adapter.error(error, request_id), extra | error.headers)


class CurrentApp:
    """The application whose parts are in force when a request comes. It refuses all once it `is_closed`.

    Its arguments are those of `GatewayApp`.
    """

    def __init__(self, app: GatewayApp) -> None:
        self.app, self.is_closed = app, False

    def is_stopping(self) -> bool:
        return self.app.parts.is_stopping

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, caller: Caller | None = None, *, is_batch: bool = False
    ) -> None:
        if self.is_closed:
            await REFUSAL(scope, receive, send)
            return
        app = self.app
        app.running += 1
        try:
            await app(scope, receive, send, caller, is_batch=is_batch)
        finally:
            app.running -= 1
            if app.must_end:
                app.end()


def load_rest(parts: Parts) -> Application:
    from coe.gateway.endpoints.fastapi_app import create_rest

    return create_rest(parts)
