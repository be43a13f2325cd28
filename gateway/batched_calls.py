"""Calls that are run together, such as encoding queries: at the end of a turn of the event loop, or where they take
about a millisecond each in a thread of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from fleet.tasks import resolve

MOST_AT_ONCE = 8
"""A result waits for at most seven calls more than it needs."""

T = TypeVar("T")


class Waiting(NamedTuple):
    """A call, the request that waits for its result, and what the call is about."""

    call: Callable[[], Any]
    result: asyncio.Future[Any]
    about: Any = None


Prepare = Callable[[Sequence[Any]], object]
"""Does a part of the work of several calls at once, given what each is about. Where it fails, each call does it."""


class CallsOfTurn:
    """Runs calls one after another at the end of the turn of the event loop in which they come: of 16 chats at once
    some eight are decided together, by code and tables that are in the processor's caches then."""

    def __init__(self, prepare: Prepare | None = None) -> None:
        self._waiting: deque[Waiting] = deque()
        self._prepare = prepare

    def run(self, call: Callable[[], T], about: object = None) -> asyncio.Future[T]:
        """The result of a call, or what it raises."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._work)
        self._waiting.append(Waiting(call, result, about))
        return result

    def _work(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        for each, found in zip(batch, outcomes(batch, self._prepare), strict=True):
            resolve(each.result, *found)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._work)


class BatchedCalls:
    """Runs calls one after another in a thread. Those that come while it works wait, and are then run together: where
    thread and event loop took turns with every call, each found the processor's caches full of what the other needs,
    and a chat of 16 at once took a quarter more processor time.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str, prepare: Prepare | None = None) -> None:
        self._prepare = prepare
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting: deque[Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def run(self, call: Callable[[], T], about: object = None) -> T:
        """The result of a call. Raises what the call raises."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(call, result, about))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="batched-calls")
        return await result

    def close(self) -> None:
        """Runs nothing more. Who still waits is cancelled."""
        self._thread.shutdown(wait=False)
        if self._worker is not None:
            self._worker.cancel()

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = list(islice(self._waiting, MOST_AT_ONCE))
                work = partial(outcomes, batch, self._prepare)
                for found, error in await asyncio.get_running_loop().run_in_executor(self._thread, work):
                    resolve(self._waiting.popleft().result, found, error)
        finally:
            while self._waiting:
                self._waiting.popleft().result.cancel()


def outcomes(batch: Sequence[Waiting], prepare: Prepare | None) -> list[tuple[Any, Exception | None]]:
    """The result or the error of each call; what nobody waits for any more is left out."""
    awaited = [each.about for each in batch if not each.result.done()]
    if prepare is not None and len(awaited) > 1:
        with suppress(Exception):
            prepare(awaited)
    return [(None, None) if each.result.done() else outcome(each.call) for each in batch]


def outcome(call: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return call(), None
    except StopIteration:  # a future refuses it, as a coroutine does, and all that came with it would wait for ever
        return None, RuntimeError("the call raised StopIteration")
    except Exception as error:  # noqa: BLE001  # raised again where the result is awaited
        return None, error
