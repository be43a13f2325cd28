"""The end of a stream: held until its row is safe, because a client that has seen `[DONE]` may rely on the log. What an
expert sends after it is read in the background."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from base.errors import BackendError
from router.protocols import ChunkStream

MAX_TAIL_S = 1.0
END_MARK = re.compile(rb"^data:[ \t]*\[DONE\]", re.MULTILINE)
COMPACT_MARK = b"data:[DONE]"


class HeldEnd:
    """Passes the bytes of a stream on, but for what begins with the line `data: [DONE]`; nothing is changed.

    A piece that ends inside what may become that line is kept back up to the line's beginning until more has come.
    """

    def __init__(self) -> None:
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
        found = END_MARK.search(text, first_line)
        if found is not None:
            self._is_end = True
            return found.start()
        last_line = max(first_line, text.rfind(b"\n") + 1)
        compact = text[last_line:].replace(b" ", b"").replace(b"\t", b"")
        return last_line if COMPACT_MARK.startswith(compact) else len(text)


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
