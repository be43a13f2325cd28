"""The total time of an answer, wherever its reader is when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from coe.base.errors import BackendError
from coe.gateway.experts.answer import AnswerTime, GuardedChunks


async def pieces(*given: bytes, must_wait: bool = False) -> AsyncGenerator[bytes, None]:
    for piece in given:
        yield piece
    if must_wait:
        await asyncio.Event().wait()


def guarded(chunks: AsyncGenerator[bytes, None], in_s: float) -> GuardedChunks:
    return GuardedChunks(chunks, time=AnswerTime(in_s), key=None)


async def test_a_reader_that_waits_hears_of_the_end_and_is_not_cancelled() -> None:
    chunks = guarded(pieces(b"a", must_wait=True), 0.01)
    assert await anext(chunks) == b"a"
    with pytest.raises(BackendError, match=r"longer than 0\.01 s"):
        await anext(chunks)
    task = asyncio.current_task()
    assert task.cancelling() == 0
    await chunks.aclose()


async def test_the_time_ends_while_nobody_reads() -> None:
    chunks = guarded(pieces(b"a", b"b"), 0.0)
    for _ in range(3):  # the timer is due in the next round of the loop
        await asyncio.sleep(0)
    with pytest.raises(BackendError, match="longer than"):
        await anext(chunks)
    await chunks.aclose()


@pytest.mark.parametrize("in_s", [60.0, 0.0])
async def test_a_reader_that_another_cancels_stays_cancelled(in_s: float) -> None:
    chunks = guarded(pieces(must_wait=True), 60.0)
    reading = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    reading.cancel()
    if in_s == 0.0:
        chunks._time._expire()  # in the same round
    with pytest.raises(asyncio.CancelledError):
        await reading
    await chunks.aclose()


async def test_a_closed_answer_leaves_no_timer() -> None:
    chunks = guarded(pieces(b"a"), 60.0)
    assert [piece async for piece in chunks] == [b"a"]
    await chunks.aclose()
    assert chunks._time._timer.cancelled()
