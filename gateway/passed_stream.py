"""Passes a stream on: its end waits until its row is safe, and a client gets the events that it asked for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress

from base.errors import BackendError
from base.json_text import JsonError
from fleet.backend import MAX_EVENT_BYTES, ChunkStream
from gateway.answer_reader import reply_json

MAX_TAIL_S = 1.0


class EndMark:
    """The line that begins the end of a stream: a field of an event with one of some values."""

    def __init__(self, name: bytes, *values: bytes) -> None:
        self._line = re.compile(
            rb"^" + name + rb":[ \t]*(?:" + b"|".join(re.escape(value) for value in values) + rb")", re.MULTILINE
        )
        self._usual = tuple(name + b": " + value for value in values)

    def is_in(self, chunk: bytes) -> bool:
        """Returns True where a piece of a stream holds that line as engines write it."""
        return self._usual[0] in chunk or any(line in chunk for line in self._usual[1:])

    def found_in(self, lines: bytes) -> int | None:
        """The place where that line begins."""
        found = self._line.search(lines)
        return None if found is None else found.start()


CHAT_END = EndMark(b"data", b"[DONE]")


class HeldEnd:
    """Passes the lines of a stream on, except what begins with the line `data: [DONE]`.

    That waits until its row is safe: a client that has seen it may rely on the log.
    """

    def __init__(self, mark: EndMark) -> None:
        self._mark = mark
        self.held = b""

    def pass_on(self, lines: bytes) -> bytes:
        """Gives what may go to the client now; empty when all of it has to wait."""
        begin = 0 if self.held else self._mark.found_in(lines)
        if begin is None:
            return lines
        self.held += lines[begin:]
        return lines[:begin]


class EditedEvents:
    """Passes the events of a stream on, except one that only reports usage where its client did not ask for that.

    Args:
        edited: an event of calls of tools as the client gets it; None where all are right.
    """

    def __init__(self, hides_usage: bool, edited: Callable[[bytes], bytes] | None) -> None:
        self._held = bytearray()  # an event that is not whole yet
        self._hides_usage, self._edited = hides_usage, edited

    def pass_on(self, lines: bytes) -> bytes:
        """Gives what may go to the client now."""
        if self._held or not lines.endswith((b"\n\n", b"\n\r\n")):
            begin = max(len(self._held) - 3, 0)
            self._held += lines
            whole = max((found.end() for found in EVENT_END.finditer(self._held, begin)), default=0)
            if len(self._held) > MAX_EVENT_BYTES:
                whole = len(self._held)
            lines = bytes(self._held[:whole])
            del self._held[:whole]
        if self._hides_usage and b'"usage"' in lines:
            lines = b"".join(event for event in EVENT.findall(lines) if not is_usage_only(event))
        if self._edited is not None and CALLS.search(lines):
            lines = b"".join(map(self._edited, EVENT.findall(lines)))
        return lines

    def rest(self) -> bytes:
        """Gives the last event, which has no blank line behind it."""
        return bytes(self._held)


EVENT_END = re.compile(rb"(?:\r?\n){2}")
EVENT = re.compile(rb".*?(?:\r?\n){2}|.+", re.DOTALL)
CALLS = re.compile(rb'"tool_calls"\s*:\s*\[\s*\{')  # some engines have null or an empty list in each event


def is_usage_only(event: bytes) -> bool:
    """Returns True for the event that `stream_options.include_usage` adds: usage, and no choices or null."""
    try:
        values = reply_json(data_of(event))
    except JsonError:
        return False
    return isinstance(values, dict) and not values.get("choices") and isinstance(values.get("usage"), dict)


def data_of(event: bytes) -> bytes:
    return b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))


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
