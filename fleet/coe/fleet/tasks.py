"""Background tasks: one that looks again and again, a sure end, calls that are run together, and results for those who
wait."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from coe.base.errors import reason_of

AGAIN_S = 0.1
MAX_DUTY = 0.05
"""Largest share of the time that looking may take: what takes long is looked at less often (ours)."""

MOST_AT_ONCE = 8
"""A result waits for at most seven calls more than it needs."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Poller(ABC):
    """Looks again and again, from `start` to `aclose`. Neither `away`, which says that something cannot be reached now,
    nor a fault of ours ends it. What is away is logged once until it is back; a fault once until it is over or another
    takes its place.

    Args:
        what: its name in the log.
        longest_s: the longest pause, however long a look took.
    """

    def __init__(
        self, what: str, every_s: float, away: tuple[type[Exception], ...] = (), longest_s: float = math.inf
    ) -> None:
        self._what, self._every_s, self._away, self._longest_s = what, every_s, away, longest_s
        self._polling: asyncio.Task[None] | None = None

    @abstractmethod
    async def look(self) -> object:
        """Looks once."""

    async def start(self) -> None:
        """Begins."""
        self._polling = asyncio.create_task(self.poll(), name=self._what)

    async def aclose(self) -> None:
        """Ends it, whatever it is at."""
        await stop_task(self._polling)

    async def poll(self) -> None:
        """Looks until it is cancelled."""
        waits, fault = False, ""
        while True:
            began_s = time.monotonic()
            try:
                await self.look()
                if waits:
                    logger.info("%s waits no longer", self._what)
                waits, fault = False, ""
            except self._away as error:
                if not waits:
                    logger.warning("%s waits (%s)", self._what, reason_of(error))
                waits = True
            except Exception as error:
                if repr(error) != fault:
                    logger.exception("%s continues after a fault", self._what)
                fault = repr(error)
            took_s = time.monotonic() - began_s
            await asyncio.sleep(min(max(self._every_s, took_s / MAX_DUTY), self._longest_s))


async def stop_task(task: asyncio.Task[object] | None) -> None:
    """Cancels the task until it has ended; its error is dropped. Nothing happens when there is none or it has ended.

    One cancel is not enough: `asyncio.wait_for` of Python 3.11, which redis-py sends through, swallows a cancel that
    comes in the same turn of the loop as its result.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_S)
    if task is not None and not task.cancelled():
        task.exception()  # looked at, so that the loop does not report it as never retrieved


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Waits for an event; False where it did not come in time."""
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False


def resolve(result: asyncio.Future[T], found: T, error: BaseException | None = None) -> None:
    """Tells who waits for a result, or of the error in its place; one that has left is done already."""
    if result.done():
        return
    if error is None:
        result.set_result(found)
    else:
        result.set_exception(error)


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
    """The result or the error of each call. A call that nobody waits for any more is not run."""
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
