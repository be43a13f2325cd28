"""Reading large JSON in a thread, so that the event loop answers others between its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

LARGE_BYTES = 64 * 1024

T = TypeVar("T")

# A parser holds the interpreter while it runs, so a second thread would not be quicker; it would crowd out the loop.
READER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coe-json")


async def read_off_loop(read: Callable[[bytes], T], raw: bytes) -> T:
    """`read(raw)`; of a small body at once, which takes microseconds. Raises what `read` does."""
    if len(raw) < LARGE_BYTES:
        return read(raw)
    return await asyncio.get_running_loop().run_in_executor(READER, read, raw)


async def off_loop(work: Callable[[], T], raw: bytes) -> T:
    """`work()` on what was read from a body, in the thread where that body is large. Raises what `work` does."""
    return await read_off_loop(lambda _: work(), raw)
