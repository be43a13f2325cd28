"""A limit on the requests that run at once, a short queue behind it, and an immediate refusal of the rest."""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.http_errors import RETRY_AFTER_S, ApiError

QUEUED_PER_RUNNING = 4  # one waits for each four that run: a queue that drains in a quarter of an answer's time (ours)


class Admission:
    """Use as `async with admission:`.

    Args:
        max_running: requests that run at once.
        max_queued: requests that wait for a place; None is a quarter of `max_running`.
    """

    def __init__(self, max_running: int, max_queued: int | None = None) -> None:
        self._max_running = max_running
        self._max_queued = max(1, max_running // QUEUED_PER_RUNNING) if max_queued is None else max_queued
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.running = 0

    async def __aenter__(self) -> None:
        """Takes a place, or waits for one in order of arrival.

        Raises:
            ApiError: 429, the queue is full.
        """
        if self.running < self._max_running:
            self.running += 1
            return
        if len(self._waiting) >= self._max_queued:
            raise ApiError(
                f"the gateway is at its limit of {self._max_running} requests at once; try again later",
                status=429,
                code="overloaded",
                retry_after_s=RETRY_AFTER_S,
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()
            else:
                self._waiting.remove(place)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        """Hands the place to the first that waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1
