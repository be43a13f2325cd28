"""Threads that keys share: turns, cancellation, and texts cut into small pieces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import RequestError
from coe.retrieval.fair_threads import PIECE_CHARS, PIECE_TEXTS, FairThreads, pieces


@pytest.fixture
def threads() -> Iterator[FairThreads]:
    made = FairThreads(1, "test")
    yield made
    made.close()


class Blocked:
    """Holds the only thread until it is told to go on."""

    def __init__(self, threads: FairThreads) -> None:
        self._has_begun, self._may_end = threading.Event(), threading.Event()
        self._task = asyncio.create_task(threads.run("blocker", self._hold))

    async def __aenter__(self) -> None:
        await asyncio.to_thread(self._has_begun.wait)

    async def __aexit__(self, *_: object) -> None:
        self._may_end.set()
        await self._task

    def _hold(self) -> None:
        self._has_begun.set()
        self._may_end.wait()


async def test_keys_take_turns_however_much_one_of_them_asks_for(threads: FairThreads) -> None:
    done: list[str] = []
    async with Blocked(threads):
        much = [asyncio.create_task(threads.run("a", done.append, f"a{number}")) for number in range(4)]
        await asyncio.sleep(0)
        little = [asyncio.create_task(threads.run(key, done.append, key)) for key in "bc"]
        await asyncio.sleep(0)
    await asyncio.gather(*much, *little)
    assert done == ["a0", "b", "c", "a1", "a2", "a3"]


async def test_what_nobody_waits_for_is_not_done(threads: FairThreads) -> None:
    done: list[str] = []
    async with Blocked(threads):
        left = [asyncio.create_task(threads.run("a", done.append, "left")) for _ in range(3)]
        stays = asyncio.create_task(threads.run("a", done.append, "stays"))
        await asyncio.sleep(0)
        for task in left:
            task.cancel()
    await stays
    assert done == ["stays"]


async def test_errors_reach_who_asked_and_the_thread_goes_on(threads: FairThreads) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await threads.run("a", fail)
    assert await threads.run("a", int, "7", base=8) == 7


async def test_after_the_end_there_is_an_error() -> None:
    threads = FairThreads(1, "test")
    await asyncio.to_thread(threads.close)
    with pytest.raises(RequestError, match="stopping"):
        await threads.run("a", int)


@given(st.lists(st.integers(0, PIECE_CHARS + 10).map("x".__mul__), max_size=80))
def test_pieces_are_all_of_the_texts_in_order_and_small(texts: list[str]) -> None:
    cut = [texts[some] for some in pieces(texts)]
    assert [text for piece in cut for text in piece] == texts
    for piece in cut:
        assert 1 <= len(piece) <= PIECE_TEXTS
        assert len(piece) == 1 or sum(map(len, piece)) <= PIECE_CHARS
