"""The raw OpenAI wire over HTTP: vLLM, llama.cpp's server, and whatever else speaks it. Bytes in, bytes out."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import aiohttp
from pydantic import Field, JsonValue, SecretStr
from yarl import URL

from base.errors import BackendError
from base.json_text import to_json
from fleet.backend import MAX_ANSWER_BYTES, BackendRequest, BackendResponse, ChatBackend, ChunkStream, visible_headers
from fleet.wires._post import MAX_LINE_BYTES, Answer, Posts
from router.gateway_config import CACHE_SALT
from router.section import Section

PROBE_TIMEOUT_S = 2.0
LOOK_EVERY_S = 1.0
MODEL_FIELD = re.compile(rb'"model":"(?:[^"\\]|\\.)*"')
ID_FIELD = re.compile(rb'"id": ?"chatcmpl-(?!tool)[^"\\]*"')
"""The fields as servers write them. Inside a JSON string every quote is escaped, so no text of an answer matches."""


class Options(Section):
    """Address of an expert, and what its requests need."""

    url: str = Field(pattern=r"^https?://", description="API root, e.g. http://127.0.0.1:8101/v1")
    served_model: str = Field(min_length=1, description="the expert's name on that engine")
    extra_body: dict[str, JsonValue] = Field(default_factory=dict, description="fields that replace the client's")
    api_key: SecretStr | None = None
    timeout_s: float = Field(default=600.0, gt=0, description="longest silence: before the answer, or within it")
    connect_timeout_s: float = Field(default=3.0, gt=0)
    renames_answer: bool = Field(
        default=False, description="write `served_model` into answers: the engine names its weights file instead"
    )
    sets_id: bool = Field(default=False, description="write the request's id into answers: the engine chooses its own")
    takes_cache_salt: bool = Field(default=False, description="keep one caller's cached prompts from the others")


@dataclass(slots=True)
class Attempt:
    """One request's view of its connection."""

    is_connection_new: bool = False


ATTEMPT: ContextVar[Attempt] = ContextVar("attempt")
"""The attempt that the running task makes; aiohttp's tracing would tell the same at ten times the cost."""

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
        self._sessions: dict[bool, aiohttp.ClientSession] = {}  # by whether connections are pooled
        self._posts: dict[tuple[str, bool], Posts] = {}  # by path, and the same

    async def send(self, request: BackendRequest) -> BackendResponse:
        """Sends one request; see `ChatBackend.send`. A pooled connection that turns out dead is replaced once."""
        body = to_json({**request.body, **self._own_fields(request)})
        attempt = Attempt()
        ATTEMPT.set(attempt)
        try:
            response = await self._post(request, body)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if attempt.is_connection_new:
                raise backend_error(error) from error
            response = await self._post_fresh(request, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise backend_error(error) from error
        chunks: ChunkStream = ResponseChunks(response, min(self._options.timeout_s, request.timeout_s))
        if self._options.renames_answer or self._options.sets_id:
            name = self._options.served_model if self._options.renames_answer else None
            chunks = RenamedChunks(chunks, name, request.request_id)
        return BackendResponse(response.status, chunks, visible_headers(response.headers))

    def _own_fields(self, request: BackendRequest) -> dict[str, object]:
        """Fields that replace the client's."""
        fields: dict[str, object] = {**self._options.extra_body, "model": self._options.served_model}
        if self._options.takes_cache_salt and request.cache_salt:
            fields[CACHE_SALT] = request.cache_salt
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

    async def _post_fresh(self, request: BackendRequest, body: bytes) -> Answer:
        try:
            return await self._post(request, body, is_pooled=False)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise backend_error(error) from error

    async def _post(self, request: BackendRequest, body: bytes, *, is_pooled: bool = True) -> Answer:
        posts = self._posts.get((request.path, is_pooled))
        if posts is None:
            session, url = self._session(is_pooled=is_pooled), self._at(request.path)
            posts = self._posts[request.path, is_pooled] = Posts(session, url, self._headers, keeps_alive=is_pooled)
        headers = request.headers
        if request.request_id:
            headers = {**headers, "x-request-id": request.request_id}
        silence_s = min(self._options.timeout_s, request.timeout_s)
        return await posts.send(body, headers, limits_of(self._options.connect_timeout_s, silence_s))

    def _at(self, path: str) -> URL:
        """A path below the root, with the root's query: Azure has its `api-version` there."""
        return (self._root / path).with_query(self._root.query)

    def _session(self, *, is_pooled: bool) -> aiohttp.ClientSession:
        """Made on first use, because its connections belong to an event loop."""
        if is_pooled not in self._sessions:
            self._sessions[is_pooled] = new_session(is_pooled=is_pooled)
        return self._sessions[is_pooled]


class ResponseChunks:
    """The body of an answer, piece by piece as the socket gave it, each within `timeout_s`.

    The session's own limit ends with the connection. Where the framing of a body is broken, aiohttp closes the
    connection and never announces an end. One timer serves the whole body: `asyncio.timeout` around each piece takes
    as long as passing it on.
    """

    def __init__(self, response: Answer, timeout_s: float) -> None:
        self._response = response
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waits_since_s: float | None = None  # the reader, for a piece
        self._timer: asyncio.TimerHandle | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        content = self._response.content
        try:
            chunk = content.read_nowait() if content.is_eof() else await self._wait()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise backend_error(error, has_begun=True) from error
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _wait(self) -> bytes:
        self._waits_since_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._waits_since_s + min(LOOK_EVERY_S, self._timeout_s), self._look)
        try:
            return await self._response.content.readany()
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


class RenamedChunks:
    """An answer whose `id` names the request, and its `model` field the expert if a name is given. A line is held until
    it is whole, so no field is cut in two; one of more than `MAX_ANSWER_BYTES` ends the answer."""

    def __init__(self, chunks: ChunkStream, name: str | None, request_id: str) -> None:
        self._chunks = chunks
        self._field = None if name is None else b'"model":' + to_json(name)
        self._id_field = b'"id":' + to_json(f"chatcmpl-{request_id}")
        self._held: list[bytes] = []  # pieces of a line, joined once: they may be many
        self._held_bytes = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            try:
                received = await anext(self._chunks)
            except StopAsyncIteration:
                if not self._held:
                    raise
                return self._renamed(self._taken())
            end = received.rfind(b"\n") + 1
            lines = self._taken(received[:end]) if end else b""
            if received[end:]:
                self._held.append(received[end:])
                self._held_bytes += len(received) - end
            if self._held_bytes > MAX_ANSWER_BYTES:
                raise BackendError(f"a line of the expert's answer is larger than {MAX_ANSWER_BYTES} bytes", status=502)
            if lines:
                return self._renamed(lines)

    def _taken(self, *more: bytes) -> bytes:
        """The held bytes and these after them; nothing is held then."""
        taken, self._held, self._held_bytes = b"".join((*self._held, *more)), [], 0
        return taken

    async def aclose(self) -> None:
        await self._chunks.aclose()

    def _renamed(self, lines: bytes) -> bytes:
        field = self._field
        named = lines if field is None else MODEL_FIELD.sub(lambda _: field, lines)
        return ID_FIELD.sub(lambda _: self._id_field, named)


def new_session(*, is_pooled: bool) -> aiohttp.ClientSession:
    """A client without cookies, proxies or redirects.

    Args:
        is_pooled: keep connections alive for the next request.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=not is_pooled, socket_factory=open_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
    )


def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket; the attempt that needs it hears that its connection is new."""
    family, kind, protocol, _, _ = address
    attempt = ATTEMPT.get(None)
    if attempt is not None:
        attempt.is_connection_new = True
    return socket.socket(family, kind, protocol)


@lru_cache
def limits_of(connect_s: float, silence_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_s, sock_read=silence_s)


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
    if has_begun:
        return BackendError("the expert's answer was cut off", status=502)
    return BackendError("the expert's answer is not valid HTTP", status=502)
