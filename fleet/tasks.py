"""A sure end of background tasks."""

from __future__ import annotations

import asyncio

AGAIN_S = 0.1


async def stop_task(task: asyncio.Task[None] | None) -> None:
    """Cancels the task until it has ended; its error is dropped. Nothing happens when there is none or it has ended.

    One cancel is not enough: `asyncio.wait_for` of Python 3.11, which redis-py sends through, swallows a cancel that
    comes in the same turn of the loop as its result.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_S)
    if task is not None and not task.cancelled():
        task.exception()  # looked at, so that the loop does not report it as never retrieved
