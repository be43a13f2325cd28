"""Calls that are run together, such as encoding queries: at the end of a turn of the event loop, or where they take
about a millisecond each in a thread of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from coe.fleet.tasks import resolve

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

Outcomes = list[tuple[Any, Exception | None]]


class BatchedCalls:
    """Runs calls one after another. Those that come in one turn of the event loop, or while a thread works, are run
    together, by code and tables that are in the processor's caches then: where thread and event loop took turns with
    every call, a chat of 16 at once took a quarter more processor time.

    Args:
        thread: its name; None: the event loop's own runs them, at the end of the turn in which they come.
    """

    def __init__(self, prepare: Prepare | None = None, thread: str | None = None) -> None:
        self._prepare = prepare
        self._thread = None if thread is None else ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread)
        self._waiting: deque[Waiting] = deque()
        self._batch: list[Waiting] = []  # that is run now

    def run(self, call: Callable[[], T], about: object = None) -> asyncio.Future[T]:
        """The result of a call, or what it raises."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        if not (self._waiting or self._batch):
            loop.call_soon(self._work)
        self._waiting.append(Waiting(call, result, about))
        return result

    def close(self) -> None:
        """Runs nothing more. Who still waits is cancelled."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
        for each in (*self._batch, *self._waiting):
            each.result.cancel()
        self._waiting.clear()

    def _work(self) -> None:
        self._batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        if self._thread is None or not self._batch:
            self._tell(outcomes(self._batch, self._prepare))
            return
        working = asyncio.get_running_loop().run_in_executor(self._thread, outcomes, self._batch, self._prepare)
        working.add_done_callback(lambda done: None if done.cancelled() else self._tell(done.result()))

    def _tell(self, found: Outcomes) -> None:
        batch, self._batch = self._batch, []
        for each, (value, error) in zip(batch, found, strict=True):
            resolve(each.result, value, error)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._work)


def outcomes(batch: Sequence[Waiting], prepare: Prepare | None) -> Outcomes:
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
