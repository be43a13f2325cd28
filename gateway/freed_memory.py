"""Gives freed memory back to the system. glibc would keep for good what requests have taken."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import sys

PAUSE_S = 1.0
"""From a request to the next return of memory, which takes 1.4 ms of a core and up to 2,000 page faults afterwards."""

KEPT_BYTES = 16 * 1024 * 1024

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGE_BLOCK_BYTES = 1536 * 1024
"""Larger than any block that the default encoder takes for a query: one that goes back to the system costs a page fault
for each 4 KiB when it is taken again. At 512 KiB a query of 200 characters had 190 of them, and took a third longer."""


@functools.cache
def glibc() -> ctypes.CDLL | None:
    """The C library of this process; None where it is another one, which keeps less or offers nothing."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None


class FreedMemory:
    """Returns what requests have let go of, once for all that end within `PAUSE_S`; on the event loop. Even small ones
    leave something: what batches of their records let go of on the way to SQL lies between blocks that stay, and came
    to 4 to 7 MiB after a thousand chats.
    """

    def __init__(self) -> None:
        self._returning: asyncio.Task[None] | None = None
        self._is_due = False

    def note(self) -> None:
        """A request has ended."""
        self._is_due = True
        if self._returning is None or self._returning.done():
            self._returning = asyncio.create_task(self._return(), name="return-memory")

    async def _return(self) -> None:
        while self._is_due:  # again where a request ended meanwhile
            await asyncio.sleep(PAUSE_S)
            self._is_due = False
            await asyncio.to_thread(trim_heap)


def keep_large_blocks_apart() -> None:
    """From now on a block of `LARGE_BLOCK_BYTES` and more goes back to the system as soon as it is freed, and what is
    free behind smaller ones stays up to `KEPT_BYTES`, in one heap for all threads: with one for each, what one
    has freed is of no use to the others, which came to 5 MiB after 6,000 chats.

    On its own glibc raises the first size to that of the largest block so far, up to 32 MiB; with one that was set, it
    would give back 128 KiB and more at every end of a query.
    """
    library = glibc()
    if library is not None:
        library.mallopt(M_ARENA_MAX, 1)
        library.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def trim_heap() -> None:
    library = glibc()
    if library is not None:
        library.malloc_trim(0)
