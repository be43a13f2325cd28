from __future__ import annotations

import asyncio

from fleet.tasks import stop_task


async def test_a_task_that_swallows_a_cancel_is_stopped() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await stop_task(task)
    assert task.cancelled()
    assert swallowed == 2


async def test_nothing_to_stop_and_an_error_of_the_end_is_dropped() -> None:
    async def fail() -> None:
        raise ValueError("gone")

    await stop_task(None)
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    await stop_task(task)
    assert task.done()
