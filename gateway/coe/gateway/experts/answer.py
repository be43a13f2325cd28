"""An expert's answer as far as it must be there before a client hears anything: begun or whole, within the time for an
answer as a whole, without our key."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING

from coe.base.errors import BackendError
from coe.fleet.calls.backend import MAX_ANSWER_BYTES, MAX_ERROR_BYTES, BackendResponse, ChunkStream, read_all
from coe.fleet.processes.tasks import stop_task
from coe.gateway.experts.answer_reader import JsonAnswer, read_answer
from coe.gateway.experts.errors import MASK, error_in_answer, told_error, upstream_error, without_keys
from coe.gateway.http.asgi import read_off_loop

if TYPE_CHECKING:
    from coe.fleet.calls.pool import Call
    from coe.gateway.chat_request import Native

EVENT_STREAM = "text/event-stream"
JSON = "application/json"
EVENT_BEGINS = (b"data:", b"event:", b":")
CONTENT = re.compile(
    rb'"(?:content|text|delta|reasoning(?:_content)?|thinking|refusal|arguments|partial_json|name|data|transcript)"'
    rb'\s*:\s*"[^"]'
    rb'|"(?:finish|stop)_reason"\s*:\s*"[^"]|"status"\s*:\s*"(?:completed|incomplete)"|^data:\s*\[DONE\]',
    re.MULTILINE,
)
"""Content of a stream of any API, which is more than comments, a role and empty texts, or its end. Inside a JSON
string every quote is escaped, so no text matches."""

ERROR_EVENT = re.compile(rb'^data:[ \t]*(\{[^\n]*"error"\s*:\s*[{"])', re.MULTILINE)
"""A line that may tell an error; a tool of the client's may be named so, too, where an engine repeats the request."""

MAX_LEAD_S, MAX_LEAD_BYTES = 10.0, 64 * 1024
"""The longest that a stream is held back before its content: comments keep the connections of clients open, too."""


@dataclass(slots=True)
class StreamedAnswer:
    """A stream whose first content is here. Close `chunks` in any case.

    Args:
        call: the call of the expert that ends with the stream; None where it has ended already.
        is_native: the expert got the client's own request and answers by its API.
        hides_usage: the gateway asked for the usage that the stream may report; its client did not.
        is_whole: the expert sent it in one piece, which is all in `first`.
        left_out: fields of the request that the expert does not take.
    """

    expert: str
    content_type: str
    first: bytes
    chunks: ChunkStream
    is_native: bool = False
    hides_usage: bool = False
    engine: int | None = None
    is_whole: bool = False
    left_out: tuple[str, ...] = ()
    call: Call | None = None


@dataclass(slots=True)
class WholeAnswer:
    """A complete answer with its usage and finish reason."""

    expert: str
    content_type: str
    body: bytes
    facts: JsonAnswer
    is_native: bool = False
    engine: int | None = None
    left_out: tuple[str, ...] = ()


async def read_beginning(
    expert: str,
    response: BackendResponse,
    key: str | None = None,
    native: Native | None = None,
    *,
    asks_stream: bool = False,
) -> StreamedAnswer | WholeAnswer:
    """Reads what must be there before the client hears anything: a stream's first content, or all of a JSON answer.

    Args:
        key: ours for that expert, which no message may show.
        native: the request that it got, where that was not a chat request.
        asks_stream: a stream is known by how it begins, too. Servers may give it no type, or that of a text or of JSON.

    Raises:
        ApiError: the expert answered with an error, whatever its status.
        BackendError: the answer is empty, cut, or not a chat completion.
    """
    if not 200 <= response.status < 300:
        body = await read_all(response.chunks, MAX_ERROR_BYTES)
        raise upstream_error(expert, response.status, body, response.headers, key)
    said = response.headers.get("content-type", "")
    content_type, is_stream = shown_type(said or JSON, key)
    first = await lead(response.chunks) if is_stream or asks_stream else b""
    if not is_stream and first.startswith(EVENT_BEGINS):
        content_type, is_stream = EVENT_STREAM, True
    if is_stream:
        first, response.chunks = await through_content(expert, response.chunks, first, key)
        return StreamedAnswer(expert, content_type, first, response.chunks, native is not None, engine=response.engine)
    body = first + await read_all(response.chunks, MAX_ANSWER_BYTES)
    facts = await read_off_loop(partial(read_answer, as_chat=native.as_chat if native else None), body)
    if facts is None:
        kind = f"one of /v1/{native.api}" if native else "a chat completion"
        raise BackendError(f"expert {expert} sent {content_type[:100]} that is not {kind}", status=502)
    if native is None and not facts.has_choice:
        raise error_in_answer(expert, body, key)
    return WholeAnswer(expert, content_type, body, facts, native is not None, response.engine)


async def through_content(expert: str, chunks: ChunkStream, first: bytes, key: str | None) -> tuple[bytes, ChunkStream]:
    """A stream until its first content, and the rest: the client has seen nothing yet, so another expert may answer in
    its place.

    Raises:
        ApiError: an error comes instead.
        BackendError: it breaks off or ends before.
    """
    held, ends_s = first, time.monotonic() + MAX_LEAD_S
    while True:
        content = CONTENT.search(first)
        for found in ERROR_EVENT.finditer(first, 0, content.start() if content else len(first)):
            if (told := told_error(first[found.start(1) :].partition(b"\n")[0])) is not None:
                raise error_in_answer(expert, told, key)
        if content or len(held) > MAX_LEAD_BYTES:
            return held, chunks
        if not first:
            raise BackendError(f"expert {expert} sent an empty stream", status=502, is_retryable=True)
        following = AwaitedChunks(chunks)
        if not await following.is_here(ends_s - time.monotonic()):
            return held, following
        first = await anext(following, b"")
        held += first


class AwaitedChunks:
    """Pieces of which the next one is awaited already, so that others can be passed on meanwhile."""

    def __init__(self, chunks: ChunkStream) -> None:
        self._chunks = chunks
        self._next: asyncio.Task[bytes] | None = asyncio.create_task(lead(chunks), name="lead of a stream")

    async def is_here(self, within_s: float) -> bool:
        """Waits for the next piece."""
        try:
            return bool((await asyncio.wait([self._next] if self._next else (), timeout=within_s))[0])
        except BaseException:
            await stop_task(self._next)
            raise

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._next is None:
            return await anext(self._chunks)
        following, self._next = self._next, None
        piece = await following
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        await stop_task(self._next)
        await self._chunks.aclose()


async def lead(chunks: ChunkStream) -> bytes:
    """A piece from before the first content; nothing at the end. Raises BackendError, which allows another try."""
    try:
        return await anext(chunks, b"")
    except BackendError as cut:
        cut.is_retryable = cut.is_retryable or cut.status == 502
        raise


@lru_cache
def shown_type(content_type: str, key: str | None) -> tuple[str, bool]:
    """The content type as clients may see it, and its meaning: a stream of events."""
    shown = without_keys(content_type, key)
    is_stream = shown.lower().startswith(EVENT_STREAM)
    if not (shown.isascii() and shown.isprintable()):
        shown = EVENT_STREAM if is_stream else JSON
    return shown, is_stream


def key_pattern(key: str) -> re.Pattern[bytes]:
    """A key as JSON may write it: each character, or its escape."""
    written = (
        rb"(?:"
        + re.escape(byte)
        + rb"|\\u00(?i:"
        + byte.hex().encode()
        + rb")"
        + (rb"|\\/)" if byte == b"/" else rb")")
        for byte in (bytes([each]) for each in key.encode())
    )
    return re.compile(b"".join(written))


class AnswerTime:
    """The time that an expert has for an answer as a whole: `with time:` around each wait for it. Close it in any case.

    One timer serves all of them: `asyncio.timeout_at` around each takes 4 us, as much as passing a piece on.

    Args:
        total_s: from now on; the message states it.

    Raises:
        BackendError: out of the block, 504 once the time is over; at its begin where it was over before.
    """

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._waiting: asyncio.Task[object] | None = None
        self._cancels_before = 0
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(total_s, self._expire)

    def __enter__(self) -> None:
        if self._is_over:
            raise too_late(self._total_s)
        task = self._waiting = asyncio.current_task(self._loop)
        self._cancels_before = task.cancelling() if task else 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        task, self._waiting = self._waiting, None
        if kind is asyncio.CancelledError and task and self._is_over and task.uncancel() <= self._cancels_before:
            raise too_late(self._total_s) from error  # where nobody else has cancelled

    def close(self) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self._is_over = True
        if self._waiting is not None:
            self._waiting.cancel()


class GuardedChunks:
    """An answer that ends within its time, and does not hold the expert's key. Close it in any case."""

    def __init__(self, chunks: ChunkStream, *, time: AnswerTime, key: str | None) -> None:
        self._chunks, self._time = chunks, time
        self._key = key_pattern(key) if key else None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with self._time:
            lines = await anext(self._chunks)
        return lines if self._key is None else self._key.sub(MASK.encode(), lines)

    async def aclose(self) -> None:
        self._time.close()
        await self._chunks.aclose()


def too_late(total_s: float) -> BackendError:
    return BackendError(f"the expert's answer took longer than {total_s:g} s", status=504)
