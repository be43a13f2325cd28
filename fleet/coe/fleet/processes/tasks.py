"""Background tasks: one that looks again and again, a sure end, and results for those who wait."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from typing import TypeVar

from coe.base.errors import reason_of

AGAIN_S = 0.1
MAX_DUTY = 0.05
"""Largest share of the time that looking may take: what takes long is looked at less often (ours)."""

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
