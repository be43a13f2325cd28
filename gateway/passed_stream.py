"""Passes a stream on: its end waits until its row is safe, and a client gets the events that it asked for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress

from base.errors import BackendError
from base.json_text import JsonError
from fleet.backend import ChunkStream
from gateway.answer_reader import MAX_HELD_BYTES, reply_json

MAX_TAIL_S = 1.0


class EndMark:
    """The line that begins the end of a stream: a field of an event with one of some values."""

    def __init__(self, name: bytes, *values: bytes) -> None:
        self._line = re.compile(
            rb"^" + name + rb":[ \t]*(?:" + b"|".join(re.escape(value) for value in values) + rb")", re.MULTILINE
        )
        self._compact = tuple(name + b":" + value for value in values)
        self._usual = tuple(name + b": " + value for value in values)

    def is_in(self, chunk: bytes) -> bool:
        """Returns True where a piece of a stream holds that line as engines write it."""
        return self._usual[0] in chunk or any(line in chunk for line in self._usual[1:])

    def found_in(self, text: bytes, begin: int = 0) -> int | None:
        """The place where that line begins in `text`, which begins a line at `begin`."""
        found = self._line.search(text, begin)
        return None if found is None else found.start()

    def may_be(self, line: bytes) -> bool:
        """Returns True where a line that begins with these bytes may become one."""
        begun = line.replace(b" ", b"").replace(b"\t", b"")
        return any(each.startswith(begun) for each in self._compact)


CHAT_END = EndMark(b"data", b"[DONE]")


class HeldEnd:
    """Passes the bytes of a stream on, except what begins with the line `data: [DONE]`.

    That waits until its row is safe: a client that has seen it may rely on the log.

    A piece that ends inside what may become that line is kept back up to the line's beginning until more has come.
    """

    def __init__(self, mark: EndMark) -> None:
        self._mark = mark
        self.held = b""
        self._is_end = False
        self._is_line_start = True  # where `held` begins

    def pass_on(self, chunk: bytes) -> bytes:
        """Gives what may go to the client now; empty when all of it has to wait."""
        text = self.held + chunk
        begin = 0 if self._is_end else self._end_in(text)
        passed, self.held = text[:begin], text[begin:]
        if passed:
            self._is_line_start = passed.endswith(b"\n")
        return passed

    def _end_in(self, text: bytes) -> int:
        """The place where the end begins or may begin; the length of `text` when it does not."""
        first_line = 0
        if not self._is_line_start:
            first_line = text.find(b"\n") + 1
            if not first_line:
                return len(text)
        found = self._mark.found_in(text, first_line)
        if found is not None:
            self._is_end = True
            return found
        last_line = max(first_line, text.rfind(b"\n") + 1)
        return last_line if self._mark.may_be(text[last_line:]) else len(text)


class EditedEvents:
    """Passes the events of a stream on, except one that only reports usage where its client did not ask for that.

    Args:
        edited: an event of calls of tools as the client gets it; None where all are right.
    """

    def __init__(self, hides_usage: bool, edited: Callable[[bytes], bytes] | None) -> None:
        self.held = b""  # an event that is not whole yet
        self._hides_usage, self._edited = hides_usage, edited

    def pass_on(self, chunk: bytes) -> bytes:
        """Gives what may go to the client now."""
        text = self.held + chunk
        whole = len(text)
        if not text.endswith((b"\n\n", b"\n\r\n")) and whole <= MAX_HELD_BYTES:
            ends = EVENT_END.finditer(text, max(len(self.held) - 3, 0))
            whole = max((found.end() for found in ends), default=0)
        passed, self.held = text[:whole], text[whole:]
        if self._hides_usage and b'"usage"' in passed:
            passed = b"".join(event for event in EVENT.findall(passed) if not is_usage_only(event))
        if self._edited is not None and CALLS.search(passed):
            passed = b"".join(map(self._edited, EVENT.findall(passed)))
        return passed


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
