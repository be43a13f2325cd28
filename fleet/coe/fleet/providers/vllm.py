"""OpenAI's API over HTTP: vLLM, llama.cpp's server, and whatever else speaks it. Bytes in, bytes out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import aiohttp
from pydantic import Field, JsonValue, SecretStr
from yarl import URL

from coe.base.errors import BackendError
from coe.base.json_text import to_json
from coe.fleet.calls.backend import (
    MAX_ANSWER_BYTES,
    MAX_EVENT_BYTES,
    BackendRequest,
    BackendResponse,
    ChatBackend,
    WholeLines,
    visible_headers,
    with_params,
)
from coe.fleet.providers._post import MAX_INTERIM, MAX_LINE_BYTES, Answer, Connections, InterimError, Posts, StaleError
from coe.router.config.gateway import CACHE_SALT
from coe.router.section import HttpUrl, Section

PROBE_TIMEOUT_S = 2.0
BATCH_PRIORITY = 1_000_000
"""Of a line of a batch. vLLM serves the lowest first, and a client's own is at most this."""

LOOK_EVERY_S = 1.0
MODEL_FIELD = re.compile(rb'"model":"(?:[^"\\]|\\.)*"')
ID_FIELD = re.compile(rb'"id": ?"chatcmpl-(?!tool)[^"\\]*"')
"""The fields as servers write them. Inside a JSON string every quote is escaped, so no text of an answer matches."""

Replaced = list[tuple[re.Pattern[bytes], bytes]]

PIECE_BYTES = 64 * 1024
"""The most of an answer that is read in one turn of the event loop."""


class Options(Section):
    """Address of an expert, and what its requests need."""

    url: HttpUrl = Field(description="API root, e.g. http://127.0.0.1:8101/v1")
    served_model: str = Field(min_length=1, description="the expert's name on that engine")
    extra_body: dict[str, JsonValue] = Field(
        default_factory=dict, description="fields that always replace the client's"
    )
    params: dict[str, JsonValue] = Field(default_factory=dict, description="as `backend.with_params` takes them")
    api_key: SecretStr | None = None
    timeout_s: float = Field(default=600.0, gt=0, description="longest silence: before the answer, or within it")
    connect_timeout_s: float = Field(default=3.0, gt=0)
    renames_answer: bool = Field(
        default=False, description="write `served_model` into answers: the engine names its weights file instead"
    )
    sets_id: bool = Field(default=False, description="write the request's id into answers: the engine chooses its own")
    takes_cache_salt: bool = Field(default=False, description="keep one caller's cached prompts from the others")

    takes_priority: bool = Field(default=False, description="lines of batches wait for other requests")


EXAMPLES = (
    Options(url="http://127.0.0.1:8101/v1", served_model="coder"),
    Options(
        url="http://127.0.0.1:8101/v1",
        served_model="calculator",
        extra_body={"lora": [{"id": 1, "scale": 1.0}]},
        renames_answer=True,
    ),
    Options(url="http://127.0.0.1:8101/v1", served_model="coder", takes_cache_salt=True),
)


def build(options: Options) -> ChatBackend:
    return VllmBackend(options)


class VllmBackend:
    """One expert on an OpenAI-compatible engine. Connections are pooled and made on first use."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._root = URL(options.url)
        self._headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "coe"}
        if options.api_key is not None:
            self._headers["authorization"] = f"Bearer {options.api_key.get_secret_value()}"
        self._connect = aiohttp.ClientTimeout(total=None, connect=options.connect_timeout_s)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}  # by whether connections are pooled
        self._posts: dict[tuple[str, bool], Posts] = {}  # by path, and the same

    async def send(self, request: BackendRequest) -> BackendResponse:
        """Sends one request; see `ChatBackend.send`. A pooled connection that turns out dead is replaced once."""
        body = to_json({**with_params(request, self._options.params), **self._own_fields(request)})
        try:
            try:
                response = await self._post(request, body)
            except StaleError:
                response = await self._post(request, body, is_pooled=False)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise backend_error(error) from error
        chunks = ResponseChunks(
            response,
            min(self._options.timeout_s, request.timeout_s),
            MAX_EVENT_BYTES if request.is_stream else MAX_ANSWER_BYTES,
            self._fields_of(request),
        )
        return BackendResponse(response.status, chunks, visible_headers(response.headers))

    def _fields_of(self, request: BackendRequest) -> Replaced:
        """Fields of the answer as clients get them."""
        fields: Replaced = []
        if self._options.renames_answer:
            fields.append((MODEL_FIELD, literal(b'"model":' + to_json(self._options.served_model))))
        if self._options.sets_id:
            fields.append((ID_FIELD, literal(b'"id":' + to_json(f"chatcmpl-{request.request_id}"))))
        return fields

    def _own_fields(self, request: BackendRequest) -> dict[str, object]:
        """Fields that replace the client's."""
        fields: dict[str, object] = {**self._options.extra_body, "model": self._options.served_model}
        if self._options.takes_cache_salt and request.cache_salt:
            fields[CACHE_SALT] = request.cache_salt
        if self._options.takes_priority and request.is_batch:
            fields["priority"] = BATCH_PRIORITY
        return fields

    async def is_alive(self) -> bool:
        """Returns True when the engine lists its models."""
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        try:
            async with self._session(is_pooled=True).get(
                self._at("models"), headers=self._headers, timeout=timeout, allow_redirects=False
            ) as response:
                return response.status < 500
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def aclose(self) -> None:
        sessions, self._sessions, self._posts = self._sessions, {}, {}
        for session in sessions.values():
            await session.close()

    async def _post(self, request: BackendRequest, body: bytes, *, is_pooled: bool = True) -> Answer:
        posts = self._posts.get((request.path, is_pooled))
        if posts is None:
            session, url = self._session(is_pooled=is_pooled), self._at(request.path)
            posts = self._posts[request.path, is_pooled] = Posts(session, url, self._headers, keeps_alive=is_pooled)
        headers = request.headers
        if request.request_id:
            headers = {**headers, "x-request-id": request.request_id}
        silence_s = min(self._options.timeout_s, request.timeout_s)
        return await posts.send(body, headers, self._connect, silence_s)

    def _at(self, path: str) -> URL:
        """A path below the root, with the root's query: Azure has its `api-version` there."""
        return (self._root / path).with_query(self._root.query)

    def _session(self, *, is_pooled: bool) -> aiohttp.ClientSession:
        """Made on first use, because its connections belong to an event loop."""
        if is_pooled not in self._sessions:
            self._sessions[is_pooled] = new_session(is_pooled=is_pooled)
        return self._sessions[is_pooled]


class ResponseChunks:
    """The body of an answer, in whole lines as the socket gave them, each piece of it within `timeout_s`.

    The session's own limit ends with the connection. Where the framing of a body is broken, aiohttp closes the
    connection and never announces an end. One timer serves the whole body: `asyncio.timeout` around each piece takes
    as long as passing it on.

    Args:
        max_line_bytes: of a line; a larger one ends the answer.
        fields: replaced in each line.
    """

    def __init__(self, response: Answer, timeout_s: float, max_line_bytes: int, fields: Replaced) -> None:
        self._response = response
        self._timeout_s = timeout_s
        self._lines = WholeLines(max_line_bytes)
        self._fields = fields
        self._loop = asyncio.get_running_loop()
        self._waits_since_s: float | None = None  # the reader, for a piece
        self._timer: asyncio.TimerHandle | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            content = self._response.content
            try:
                piece = content.read_nowait(PIECE_BYTES) if content.is_eof() else await self._wait()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise backend_error(error, has_begun=True) from error
            lines = self._lines.feed(piece) if piece else self._lines.rest()
            for pattern, field in self._fields:
                lines = pattern.sub(field, lines)
            if len(piece) == PIECE_BYTES:
                await asyncio.sleep(0)  # more of it is here, and others wait for their turn
            if lines:
                return lines
            if not piece:
                raise StopAsyncIteration

    async def _wait(self) -> bytes:
        self._waits_since_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._waits_since_s + min(LOOK_EVERY_S, self._timeout_s), self._look)
        try:
            return await self._response.content.read(PIECE_BYTES)
        finally:
            self._waits_since_s = None

    async def aclose(self) -> None:
        """Closes the connection, unless the whole body was read: then it is back in the pool already."""
        if self._timer is not None:
            self._timer.cancel()
        self._response.close()

    def _look(self) -> None:
        """Ends the wait for a piece that took too long or will not come, or looks again later."""
        now_s, since_s = self._loop.time(), self._waits_since_s
        protocol = self._response.connection.protocol
        if since_s is not None and protocol is not None and protocol.transport is None:
            self._response.content.set_exception(aiohttp.ClientPayloadError())
        elif since_s is not None and now_s >= since_s + self._timeout_s:
            self._response.content.set_exception(TimeoutError())
        else:
            ends_s = (since_s or now_s) + self._timeout_s
            self._timer = self._loop.call_at(min(now_s + LOOK_EVERY_S, ends_s), self._look)


def literal(text: bytes) -> bytes:
    """A replacement that stands for itself."""
    return text.replace(b"\\", b"\\\\")


def new_session(*, is_pooled: bool) -> aiohttp.ClientSession:
    """A client without cookies, proxies or redirects.

    Args:
        is_pooled: keep connections alive for the next request.
    """
    return aiohttp.ClientSession(
        connector=Connections(limit=0, force_close=not is_pooled),
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
    )


def backend_error(error: BaseException, *, has_begun: bool = False) -> BackendError:
    """Translates a transport error for clients. Messages name no address: experts' URLs are not for clients.

    Args:
        has_begun: the head of the answer was there, so the request must not be sent again.
    """
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return BackendError("the expert cannot be reached", status=503, is_retryable=True)
    if isinstance(error, TimeoutError):
        return BackendError("the expert did not answer in time", status=504)
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError) and not has_begun:
        return BackendError("the expert closed the connection without an answer", status=502, is_retryable=True)
    if isinstance(error, InterimError):
        return BackendError(
            f"the expert sent more than {MAX_INTERIM} interim heads in place of an answer",
            status=502,
            is_retryable=True,
        )
    if has_begun:
        return BackendError("the expert's answer was cut off", status=502)
    return BackendError("the expert's answer is not valid HTTP", status=502)
