"""Runs batches: claims them, asks their lines when clients leave room, and ends them with their files.

A gateway runs every batch that nobody else does. Their lines share `Places` and take turns there. After a kill, whoever
comes next claims the batch when its claim has run out, and asks the lines that have no result yet.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from coe.base.errors import StoreError
from coe.decision_log.tables.access import BatchRow
from coe.fleet.processes.tasks import Poller, happens, stop_task
from coe.gateway.batches.batch_store import CANCELLING, COMPLETED, EXPIRED, FAILED, VALIDATING, BatchStore
from coe.gateway.batches.lines import LATE, MAX_LINES, Line, answer_line, error_line, raw_lines, read_lines
from coe.gateway.http.asgi import Message, replay
from coe.gateway.http.inner_request import Answer, Inner, inner_scope
from coe.gateway.http_errors import no_key
from coe.gateway.keys.grants import Caller

LONGEST_WAIT_S = 60.0
TRIES_OF_FAULTS = 5
FAULTS = (502, 503, 504)
LOOK_S = 0.2

POLL_S = 1.0
CLAIM_S = 15.0

logger = logging.getLogger(__name__)


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
                await happens(self._given, LOOK_S)
            self._taken += 1

    def give(self) -> None:
        self._taken -= 1
        self._given.set()


@dataclass(frozen=True)
class Asker:
    """Asks lines.

    Args:
        app: the gateway, as it takes lines of batches.
        caller: finds the caller with a key, as it is now; None once the key has ended.
        places: of lines that run at once.
        max_bytes: of a line.
    """

    app: Inner
    caller: Callable[[str | None], Caller | None]
    places: Places
    max_bytes: int

    async def ask(self, batch: BatchRow, line: Line) -> Answer:
        """The answer, however the request ends."""
        caller, answer = self.caller(batch.key_id), Answer()
        if caller is None:
            ended = no_key("the key of this batch has ended")
            return Answer(ended.status, body=ended.body)
        scope = inner_scope({"type": "http", "scheme": "http"}, "POST", batch.endpoint, line.body)
        await self.app(scope, replay(line.body, stay), answer.take, caller)
        return answer


async def stay() -> Message:
    """The `receive` of a client that does not leave."""
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}


class BatchRun:
    """One batch while this process runs it.

    Args:
        runner: the name under which it is claimed.
    """

    def __init__(self, store: BatchStore, runner: str, batch: BatchRow, asker: Asker) -> None:
        self._store, self._runner, self._batch, self._asker = store, runner, batch, asker
        self._resume_at_s = 0.0  # of the monotonic clock
        self._has_expired = False
        self.is_stopped = batch.status == CANCELLING

    async def run(self) -> None:
        """Ends the batch; of one whose database is away the next claim continues."""
        try:
            await self._run()
        except* StoreError as errors:
            logger.warning("batch %s waits, because %s", self._batch.batch_id, errors.exceptions[0])
        except* Exception as errors:  # noqa: BLE001
            logger.error("batch %s met an unforeseen %s", self._batch.batch_id, type(errors.exceptions[0]).__name__)
            with suppress(StoreError):
                await self._finish(FAILED, "internal error")

    async def _run(self) -> None:
        total = self._batch.total
        if self._batch.status == VALIDATING:
            total = await asyncio.to_thread(self._count)
            if not 0 < total <= MAX_LINES:
                await self._finish(FAILED, f"the file has {total} lines; allowed: 1 to {MAX_LINES}")
                return
            await asyncio.to_thread(self._store.begin, self._batch.batch_id, total)
        found = await self._ask_all(await asyncio.to_thread(self._store.done, self._batch.batch_id))
        if found < total and not self.is_stopped:
            await self._finish(FAILED, "the input file was deleted before all of its lines were asked")
        else:
            await self._finish(EXPIRED if self._has_expired else COMPLETED)

    def _count(self) -> int:
        return sum(1 for _ in raw_lines(self._store.files.parts(self._batch.input_file_id), self._asker.max_bytes))

    async def _ask_all(self, done: set[int]) -> int:
        """Asks every line without a result, until the batch is stopped; returns how many lines there were."""
        parts, found = self._store.files.parts(self._batch.input_file_id), 0
        lines = read_lines(parts, self._batch.endpoint, self._asker.max_bytes)
        async with asyncio.TaskGroup() as asking:
            while not self.is_stopped and (line := await asyncio.to_thread(next, lines, None)) is not None:
                found += 1
                if line.number in done:
                    continue
                if line.error is not None:
                    await self._keep(line, error_line(line.custom_id, line.error))
                elif await self._turn():
                    asking.create_task(self._answer(line))
                else:
                    await self._leave(line)
        return found

    async def _turn(self) -> bool:
        """Waits for a place; False when the batch is stopped or late."""
        while not self._is_over and (wait := self._resume_at_s - time.monotonic()) > 0:
            await asyncio.sleep(min(wait, LOOK_S))
        await self._asker.places.take()
        if is_over := self._is_over:
            self._asker.places.give()
        return not is_over

    async def _answer(self, line: Line) -> None:
        """Asks a line that has a place, until its answer is the last one. All lines of the batch wait with it.

        The place is kept until the result is safe, so that after a kill no more lines are asked again than ran.
        """
        tries = 0
        while True:
            try:
                answer = await self._asker.ask(self._batch, line)
                if (wait := wait_s(answer, tries)) is None:
                    await self._keep(line, answer_line(line, answer), is_error=answer.status != 200)
                    return
            finally:
                self._asker.places.give()
            tries += answer.status != 429
            self._resume_at_s = max(self._resume_at_s, time.monotonic() + wait)
            if not await self._turn():
                await self._leave(line)
                return

    async def _leave(self, line: Line) -> None:
        """Leaves a line without an answer, which a batch that expires says of each."""
        if not self.is_stopped:
            self._has_expired = True
            await self._keep(line, error_line(line.custom_id, LATE))

    async def _keep(self, line: Line, result: bytes, *, is_error: bool = True) -> None:
        """Keeps a result, which may have cost something: as often as it takes."""
        while True:
            try:
                put, batch_id = self._store.put_result, self._batch.batch_id
                await asyncio.to_thread(put, batch_id, line.number, result, is_error=is_error)
                return
            except StoreError as error:
                logger.warning("a result of batch %s waits, because %s", self._batch.batch_id, error)
                await asyncio.sleep(POLL_S)

    async def _finish(self, status: str, problem: str | None = None) -> None:
        await asyncio.to_thread(self._store.finish, self._runner, self._batch, status, problem)

    @property
    def _is_over(self) -> bool:
        return self.is_stopped or time.time() >= self._batch.expires_at


class BatchRunner(Poller):
    """The batches that this process runs.

    Args:
        name: of this run of the process, which no other has.
    """

    def __init__(self, store: BatchStore, name: str, asker: Asker) -> None:
        # A look renews claims, so however slow the database is, the next one comes before they end.
        super().__init__("the running of batches", POLL_S, (StoreError,), CLAIM_S / 3)
        self._store, self._name, self._asker = store, name, asker
        self._runs: dict[str, tuple[BatchRun, asyncio.Task[None]]] = {}

    async def aclose(self) -> None:
        """Ends all runs; lines that have no result are asked again by whoever claims their batch next."""
        await super().aclose()
        for _, task in self._runs.values():
            await stop_task(task)
        with suppress(StoreError):
            await asyncio.to_thread(self._store.give_back, self._name)

    async def look(self) -> None:
        """Keeps the claims of what runs, stops what was cancelled, and begins what waits. Raises StoreError."""
        self._runs = {name: each for name, each in self._runs.items() if not each[1].done()}
        if self._runs:
            current = await asyncio.to_thread(self._store.keep, self._name, list(self._runs), CLAIM_S)
            for name, (run, _) in self._runs.items():
                run.is_stopped |= name not in current
        while (batch := await asyncio.to_thread(self._store.claim, self._name, CLAIM_S)) is not None:
            run = BatchRun(self._store, self._name, batch, self._asker)
            self._runs[batch.batch_id] = run, asyncio.create_task(run.run(), name="batch")
