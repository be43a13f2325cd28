"""The way of an expert's answer to its client: passed on as it came, or told on another surface."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from base.errors import BackendError
from base.json_text import JsonError, to_json
from fleet.backend import MAX_EVENT_BYTES, ChunkStream
from gateway.answer_reader import StreamReader, chat_completion, data_of, error_code, reply_json
from gateway.http_errors import MAX_UPSTREAM_MESSAGE_CHARS, ApiError
from gateway.tool_calls import CallEvents

if TYPE_CHECKING:
    from gateway.chat_request import ChatRequest
    from gateway.expert_answer import StreamedAnswer
    from gateway.surfaces.surface import Answer as Told
    from gateway.surfaces.surface import EndMark, Json, Surface

MAX_TAIL_S = 1.0
EVENT_END = re.compile(rb"(?:\r?\n){2}")
EVENT = re.compile(rb".*?(?:\r?\n){2}|.+", re.DOTALL)
USAGE = re.compile(rb'"usage"')
CALLS = re.compile(rb'"tool_calls"\s*:\s*\[\s*\{')  # some engines have null or an empty list in each event

SendPiece = Callable[[bytes], Awaitable[None]]


class PassedOn:
    """An answer in the API that its client asked by: its bytes are passed on as they come, and read along.

    Args:
        chat: that was sent to the expert.
        keep_chars: how much of the answer's text `reader` keeps.
    """

    def __init__(
        self, surface: Surface, request_id: str, chat: ChatRequest, answer: StreamedAnswer, keep_chars: int
    ) -> None:
        self._surface, self._request_id, self._answer = surface, request_id, answer
        native = chat.native if answer.is_native else None
        self.reader = StreamReader(keep_chars, as_chat=None if native is None else native.as_chat)
        edits = [Edit(USAGE, without_usage)] if answer.hides_usage else []
        if chat.facts.has_tools and native is None:
            edits.append(Edit(CALLS, CallEvents().edited))
        self._lines = EditedEvents(surface.end_mark, edits) if edits else BufferedTerminator(surface.end_mark)

    async def stream(self, send: SendPiece) -> None:
        """Sends all but the end. Raises BackendError: the stream was cut."""
        reader, lines, chunk, chunks = self.reader, self._lines, self._answer.first, self._answer.chunks
        while chunk:
            await send(lines.pass_on(chunk))
            reader.feed(chunk)
            if reader.is_done:
                break  # whatever an expert does after its end mark, the answer is complete
            chunk = await anext(chunks, b"")
        reader.close()
        check_complete(reader)

    def end(self) -> bytes:
        """The end, for a client whose row is safe."""
        return self._lines.rest()

    def fail(self, error: ApiError) -> bytes:
        """The last event of a stream that was cut. Inside an event there is none: the connection breaks, which no
        client takes for a complete answer."""
        return self._surface.error_event(error, self._request_id) if self.reader.is_at_boundary else b""


class Translated:
    """A streamed chat completion that is translated for another API, so each event has to be read first.

    Args:
        told: the translated answer.
        keep_chars: how much of its text `reader` keeps.
    """

    def __init__(self, surface: Surface, told: Told, answer: StreamedAnswer, keep_chars: int) -> None:
        self._answer, self._frames = answer, Frames(surface, told)
        self.reader = StreamReader(keep_chars, on_event=self._frames.read)

    async def stream(self, send: SendPiece) -> None:
        """Sends all but the end. Raises BackendError: the stream was cut, or is not one of chat completions."""
        reader, chunk, chunks = self.reader, self._answer.first, self._answer.chunks
        while chunk:
            reader.feed(chunk)
            await send(self._frames.take())
            if reader.is_done:
                break
            chunk = await anext(chunks, b"")
        reader.close()
        check_complete(reader)
        if reader.is_broken and not reader.error_code:
            raise BackendError("the expert's stream is not one of chat completions", status=502)

    def end(self) -> bytes:
        """The end, for a client whose row is safe."""
        return self._frames.end()

    def fail(self, error: ApiError) -> bytes:
        """The last event of a stream that was cut."""
        return self._frames.fail(error)


class Frames:
    """The bytes of a translated answer; apart from `Translated`, or it and its reader would refer to each other."""

    def __init__(self, surface: Surface, told: Told) -> None:
        self._surface, self._told = surface, told
        self._frames: list[bytes] = []
        self._is_over = False

    def read(self, event: Mapping[str, Any]) -> None:
        """Takes an event of the expert's. Raises BackendError where it is not one of a chat completion."""
        if self._is_over:
            return
        if event.get("error") is not None:
            self._is_over = True
            self._tell(self._told.fail(stream_error(event["error"])))
            return
        with chat_completion():
            self._tell(self._told.read(event))

    def take(self) -> bytes:
        """Gives the bytes for the client since the last call."""
        taken, self._frames = b"".join(self._frames), []
        return taken

    def end(self) -> bytes:
        if not self._is_over:
            self._tell(self._told.end())
        return self.take()

    def fail(self, error: ApiError) -> bytes:
        if not self._is_over:
            self._tell(self._told.fail(error))
        return self.take()

    def _tell(self, events: Iterable[Json]) -> None:
        self._frames += [self._surface.frame(event) for event in events]


def whole_told(told: Told, body: bytes) -> bytes:
    """A whole chat completion, translated for another API. Raises BackendError; ApiError where an error is beside
    it."""
    values = reply_json(body)
    if values.get("error") is not None:
        raise stream_error(values["error"])
    with chat_completion():
        return to_json(told.whole(values))


def check_complete(reader: StreamReader) -> None:
    """Raises BackendError where the stream that was read was cut, and did not tell why."""
    if not (reader.is_complete or reader.error_code):
        raise BackendError("the expert's answer was cut off", status=502)


def stream_error(error: object) -> ApiError:
    """The error that an expert sent in place of an answer, or of the rest of one."""
    message = error.get("message") if isinstance(error, dict) else error
    return ApiError(str(message)[:MAX_UPSTREAM_MESSAGE_CHARS], status=502, code=error_code(error))


class BufferedTerminator:
    """Passes the lines of a stream on, except what begins with the line `data: [DONE]`.

    That waits until its row is safe: a client that has seen it may rely on the log.
    """

    def __init__(self, mark: EndMark) -> None:
        self._mark = mark
        self._held = b""

    def pass_on(self, lines: bytes) -> bytes:
        """Gives what may go to the client now; empty when all of it has to wait."""
        begin = 0 if self._held else self._mark.found_in(lines)
        if begin is None:
            return lines
        self._held += lines[begin:]
        return lines[:begin]

    def rest(self) -> bytes:
        """Gives the end."""
        return self._held


class Edit(NamedTuple):
    """A change of each event of some lines, where they hold the pattern."""

    pattern: re.Pattern[bytes]
    change: Callable[[bytes], bytes]


class EditedEvents(BufferedTerminator):
    """Changes whole events on their way; the end waits, too."""

    def __init__(self, mark: EndMark, edits: Iterable[Edit]) -> None:
        super().__init__(mark)
        self._edits = tuple(edits)
        self._open = bytearray()  # an event that is not whole yet

    def pass_on(self, lines: bytes) -> bytes:
        if self._open or not lines.endswith((b"\n\n", b"\n\r\n")):
            begin = max(len(self._open) - 3, 0)
            self._open += lines
            whole = max((found.end() for found in EVENT_END.finditer(self._open, begin)), default=0)
            if len(self._open) > MAX_EVENT_BYTES:
                whole = len(self._open)
            lines = bytes(self._open[:whole])
            del self._open[:whole]
        for edit in self._edits:
            if edit.pattern.search(lines):
                lines = b"".join(map(edit.change, EVENT.findall(lines)))
        return super().pass_on(lines)

    def rest(self) -> bytes:
        """Gives the last event, which has no blank line behind it, and the end."""
        return super().pass_on(bytes(self._open)) + self._held


def without_usage(event: bytes) -> bytes:
    """Leaves the event out that `stream_options.include_usage` adds: usage, and no choices or null."""
    try:
        values = reply_json(data_of(event))
    except JsonError:
        return event
    is_usage = isinstance(values, dict) and not values.get("choices") and isinstance(values.get("usage"), dict)
    return b"" if is_usage else event


class StreamTails:
    """Reads tails in the background, so that connections can be used again and no client waits for it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def read(self, chunks: ChunkStream) -> None:
        """Reads to the end, for at most MAX_TAIL_S, and closes."""
        task = asyncio.create_task(read_tail(chunks), name="stream-tail")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def read_tail(chunks: ChunkStream) -> None:
    try:
        with suppress(BackendError, TimeoutError):
            async with asyncio.timeout(MAX_TAIL_S):
                while await anext(chunks, b""):
                    pass
    finally:
        await chunks.aclose()
