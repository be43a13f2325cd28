"""What an expert sends after the end mark of its stream: usually nothing but the end of the body."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from router.errors import BackendError
from router.protocols import ChunkStream

MAX_TAIL_S = 1.0


class StreamTails:
    """Reads tails beside the requests, so that connections can be used again and no client waits for it."""

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
