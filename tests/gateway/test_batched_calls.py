"""Calls that are run together: where they came together, or in a thread where they waited together; each with its own
result."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from coe.gateway.chat import deciding
from coe.gateway.chat.deciding import MOST_AT_ONCE, BatchedCalls, Outcome, Waiting
from coe.router.types import Query
from tests.waiting import DEADLINE_S


@pytest.fixture
async def calls() -> AsyncIterator[BatchedCalls]:
    calls = BatchedCalls("test")
    yield calls
    calls.close()


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches so far."""
    sizes, outcomes = list[int](), deciding.outcomes

    def noted(batch: Sequence[Waiting]) -> list[Outcome]:
        sizes.append(len(batch))
        return outcomes(batch)

    monkeypatch.setattr(deciding, "outcomes", noted)
    return sizes


class Held:
    """A call that goes on once it may."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.has_begun.set()
        assert self.may_end.wait(DEADLINE_S)
        return "held"


async def begun(calls: BatchedCalls) -> tuple[Held, asyncio.Future[str]]:
    held = Held()
    task = calls.run(held)
    assert await asyncio.to_thread(held.has_begun.wait, DEADLINE_S)
    return held, task


async def test_what_comes_meanwhile_is_run_together(calls: BatchedCalls, sizes: list[int]) -> None:
    held, first = await begun(calls)
    tasks = [calls.run(partial(divmod, number, 2)) for number in range(MOST_AT_ONCE + 1)]
    await asyncio.sleep(0)
    held.may_end.set()
    assert await asyncio.gather(*tasks) == [divmod(number, 2) for number in range(MOST_AT_ONCE + 1)]
    assert await first == "held"
    assert sizes == [1, MOST_AT_ONCE, 1]


async def test_an_error_is_that_of_its_own_call(calls: BatchedCalls, sizes: list[int]) -> None:
    held, _ = await begun(calls)
    tasks = [calls.run(partial(divmod, 1, by)) for by in (0, 1)]
    await asyncio.sleep(0)
    held.may_end.set()
    with pytest.raises(ZeroDivisionError):
        await tasks[0]
    assert await tasks[1] == (1, 0)
    assert sizes == [1, 2]


async def test_what_nobody_waits_for_is_not_run(calls: BatchedCalls) -> None:
    held, _ = await begun(calls)
    made = list[int]()
    gone = calls.run(partial(made.append, 1))
    await asyncio.sleep(0)
    gone.cancel()
    last = calls.run(partial(made.append, 2))
    await asyncio.sleep(0)
    held.may_end.set()
    await last
    assert made == [2]


async def test_a_closed_one_leaves_nobody_waiting(calls: BatchedCalls) -> None:
    held, first = await begun(calls)
    second = calls.run(int)
    await asyncio.sleep(0)
    calls.close()
    held.may_end.set()
    for task in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("is_in_thread", [False, True])
async def test_an_error_that_no_future_takes_leaves_nobody_waiting(calls: BatchedCalls, is_in_thread: bool) -> None:
    run = calls.run if is_in_thread else BatchedCalls().run
    both = asyncio.gather(run(partial(next, iter(()))), run(partial(divmod, 7, 2)), return_exceptions=True)
    failed, found = await asyncio.wait_for(both, DEADLINE_S)
    assert isinstance(failed, RuntimeError)
    assert found == (3, 1)


async def test_calls_of_one_turn_are_run_together_at_its_end(sizes: list[int]) -> None:
    calls, made = BatchedCalls(), list[int]()
    results = [calls.run(partial(divmod, 1, by)) for by in range(MOST_AT_ONCE)]
    gone, last = calls.run(partial(made.append, 1)), calls.run(partial(made.append, 2))
    gone.cancel()
    assert not any(result.done() for result in results)
    found = await asyncio.gather(*results, return_exceptions=True)
    await last
    assert isinstance(found[0], ZeroDivisionError)
    assert found[1:] == [divmod(1, by) for by in range(1, MOST_AT_ONCE)]
    assert (made, sizes) == ([2], [MOST_AT_ONCE, 2])


@pytest.mark.parametrize("fails", [False, True])
async def test_queries_that_come_together_are_encoded_at_once(fails: bool) -> None:
    encoded = list[object]()

    def encode(texts: Sequence[str]) -> None:
        encoded.append(texts)
        if fails:
            raise ValueError

    def query(text: str) -> Any:
        return SimpleNamespace(router=SimpleNamespace(encoder=SimpleNamespace(encode=encode)), query=Query("", text))

    calls = BatchedCalls()
    gone, *both = (calls.run(partial(divmod, number, 2), query(str(number))) for number in (1, 7, 8))
    gone.cancel()
    assert await asyncio.gather(*both) == [(3, 1), (4, 0)]
    assert await calls.run(int, query("9")) == 0
    assert encoded == [["7", "8"]]  # what is alone has nothing to share
