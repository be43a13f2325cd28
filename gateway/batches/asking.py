"""A line of a batch asked as if its client had sent it: through the application, in the name of the batch's key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.asgi import Application, Message, replay
from gateway.batches.lines import Line
from gateway.batches.store import Batch
from gateway.http_errors import ApiError
from gateway.inner_request import Answer, inner_scope
from gateway.keys.grants import Caller

LONGEST_WAIT_S = 60.0
TRIES_OF_FAULTS = 5
FAULTS = (502, 503, 504)
LOOK_S = 0.2


def wait_s(answer: Answer, tries: int) -> float | None:
    """Seconds until a line is asked again; None where its answer is the last.

    A limit is waited for, a fault of an expert or of the gateway some half a minute.
    """
    wait = min(float(answer.headers.get("retry-after", 0)), LONGEST_WAIT_S)
    if answer.status == 429:
        return wait or None  # without a time it never fits
    return max(wait, 2.0**tries) if answer.status in FAULTS and tries < TRIES_OF_FAULTS else None


class Places:
    """Places of lines that run at once: as many as other requests leave of `most`, but always one.

    Args:
        running: the number of requests that the gateway answers, lines included.
    """

    def __init__(self, most: int, running: Callable[[], int]) -> None:
        self._most, self._running = most, running
        self._turn, self._given = asyncio.Lock(), asyncio.Event()
        self._taken = 0

    async def take(self) -> None:
        """Waits for a place, in order of arrival."""
        async with self._turn:
            while self._taken and max(self._taken, self._running()) >= self._most:
                self._given.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._given.wait()
            self._taken += 1

    def give(self) -> None:
        self._taken -= 1
        self._given.set()


@dataclass(frozen=True)
class Asker:
    """Asks lines.

    Args:
        app: the gateway's application.
        caller: finds the caller with a key, as it is now; None once the key has ended.
        places: of lines that run at once.
        max_bytes: of a line.
    """

    app: Application
    caller: Callable[[str | None], Caller | None]
    places: Places
    max_bytes: int

    async def ask(self, batch: Batch, line: Line) -> Answer:
        """The answer, however the request ends."""
        caller, answer = self.caller(batch.key_id), Answer()
        if caller is None:
            ended = ApiError("the key of this batch has ended", status=401, code="invalid_api_key")
            return Answer(ended.status, body=ended.body)
        scope = inner_scope(
            {"type": "http", "scheme": "http", "coe_is_batch": True}, caller, "POST", batch.endpoint, line.body
        )
        await self.app(scope, replay(line.body, stay), answer.take)
        return answer


async def stay() -> Message:
    """The `receive` of a client that does not leave."""
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}
