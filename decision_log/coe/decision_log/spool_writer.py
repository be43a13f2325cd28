"""The queue from memory to spool: records are written in groups, and answers continue once their group is safe.

`async` writes a group `LINGER_S` after its first record and does not sync. `batched` and `sync` sync every group:
`sync` as soon as the disk is free, `batched` at most once per `batch_ms`, so that more records share a write.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

from coe.base.errors import StoreError
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.payloads import to_payload
from coe.decision_log.privacy import kept_fields
from coe.decision_log.replica_status import DecisionCount
from coe.decision_log.spool import Spool
from coe.decision_log.stream import Backoff, DecisionStream
from coe.fleet.processes.tasks import resolve
from coe.router.config.log import Durability, LogConfig, PrivacyLevel

LINGER_S = 0.02
"""Seconds that a group waits for more records in mode `async`."""
SLOW_S = 2.0
"""Seconds of writing one group, after which the disk counts as an obstacle."""

BATCH_RECORDS = 128
COMMIT_TIMEOUT_S = 10.0

T = TypeVar("T")
Waiter = asyncio.Future[None]

logger = logging.getLogger(__name__)


class Queued(NamedTuple):
    """A payload for the spool, and the answer that waits for it."""

    payload: bytes
    waiter: Waiter | None


class SpoolWriter:
    """The owner of the queue. `spooled`, `streamed` and `dropped` count records as in `LogStats`.

    Args:
        spool: opened by the caller.
        stream: takes records while the disk is full.
        executor: one thread, which makes all calls of the spool.
        key: of the keyed hashes.
        numbered: receives the fate of every number.
    """

    def __init__(
        self,
        spool: Spool,
        stream: DecisionStream,
        executor: ThreadPoolExecutor,
        config: LogConfig,
        key: bytes,
        numbered: DecisionCount,
    ) -> None:
        self._spool = spool
        self._stream = stream
        self._executor = executor
        self._privacy = config.privacy
        self._key = key
        self._numbered = numbered
        self._max_queued = config.queue_max_records
        self._durability = config.durability
        self._batch_s = config.batch_ms / 1e3
        self._queue: deque[tuple[DecisionRecord, Waiter | None]] = deque()
        self._has_queued = asyncio.Event()
        self._next_group = 0.0  # on the monotonic clock
        self._begun_at: float | None = None  # of the group that is being written, on the same clock
        self._is_closing = False
        self.has_spooled = asyncio.Event()
        self.is_done = False
        self.spooled = self.streamed = self.dropped = 0
        self.error: str | None = None
        self._is_blocked = False  # records wait that neither disk nor Redis took

    @property
    def obstacle(self) -> str | None:
        """The reason why waiting records do not become safe; None if they do. A later try may end it."""
        is_late = self._begun_at is not None and time.monotonic() - self._begun_at > SLOW_S
        return self.error or "the disk is too slow" if is_late or self._is_blocked else None

    def put(self, record: DecisionRecord, waiter: Waiter | None = None) -> bool:
        """Queue the record; return False if the queue is full and it is lost. It never blocks or raises."""
        if self._is_closing or len(self._queue) >= self._max_queued:
            self.dropped += 1
            self._numbered.settle([record.seq])
            return False
        self._queue.append((record, waiter))
        self._has_queued.set()
        return True

    async def commit(self, record: DecisionRecord) -> None:
        """Queue the record and return when it is safe: on disk, or in the stream while the disk is full.

        Raises:
            StoreError: it was not safe within `COMMIT_TIMEOUT_S`. It may still become so.
        """
        waiter = asyncio.get_running_loop().create_future()
        if not self.put(record, waiter):
            raise StoreError("the decision log takes no more records now", is_retryable=True)
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await waiter
        except TimeoutError as error:
            reason = self.error or "the disk is too slow"
            raise StoreError(f"the decision log cannot be written ({reason})", is_retryable=True) from error

    def close(self) -> None:
        """Accept no more records; `run` ends when the queue is written."""
        self._is_closing = True
        self._has_queued.set()

    async def run(self) -> None:
        """Write the queue to the spool, until closing."""
        while not (self._is_closing and not self._queue):
            await self._has_queued.wait()
            self._has_queued.clear()
            await asyncio.sleep(self._pause_s())
            self._begun_at = time.monotonic()
            try:
                await self._write_group(len(self._queue))
            finally:
                self._begun_at = None
        self.is_done = True
        self.has_spooled.set()

    def _pause_s(self) -> float:
        """Return the seconds that a group waits for more records."""
        if self._is_closing or self._durability is Durability.SYNC:
            return 0.0
        if self._durability is Durability.ASYNC:
            return LINGER_S
        return max(0.0, self._next_group - time.monotonic())

    async def _write_group(self, count: int) -> None:
        """Write the `count` oldest records and release the answers that wait for them."""
        waiters: list[Waiter] = []
        seqs = [record.seq for record, _ in islice(self._queue, count)]
        self._next_group = time.monotonic() + self._batch_s
        while count > 0:
            taken = min(count, BATCH_RECORDS)
            waiters += await self._write(*await self._next_batch(taken))
            count -= taken
        if self._durability is not Durability.ASYNC:
            self._numbered.note(max(seqs, default=-1))
        self._numbered.settle(seqs)
        settle(waiters)

    async def _next_batch(self, count: int) -> tuple[list[Queued], int]:
        """Return the next records as payloads, and how many are in the spool: all, unless the disk is full."""
        taken = [self._queue.popleft() for _ in range(count)]
        payloads, spooled = await self._in_thread(partial(self._spool_first, [record for record, _ in taken]))
        batch: list[Queued] = []
        for (_, waiter), payload in zip(taken, payloads, strict=True):
            if payload is None:
                self._refuse(waiter, "it cannot be written as JSON")
            else:
                batch.append(Queued(payload, waiter))
        return batch, spooled

    def _spool_first(self, records: Sequence[DecisionRecord]) -> tuple[list[bytes | None], int]:
        """Build the payloads and try to write them, in one visit to the thread, since each costs two turns."""
        payloads = self._payloads(records)
        if not (good := [payload for payload in payloads if payload is not None]):
            return payloads, 0
        try:
            return payloads, self._spool.write(good)
        except OSError:
            return payloads, 0  # `_write` tries again and says why not

    def _payloads(self, records: Sequence[DecisionRecord]) -> list[bytes | None]:
        """Return records as payloads; None for one that JSON cannot represent."""
        payloads: list[bytes | None] = []
        for record in records:
            try:
                payloads.append(to_payload(record, kept_fields(record, self._privacy, self._key)))
            except ValueError:
                logger.exception("decision %s cannot be written as JSON", record.decision_id)
                payloads.append(None)
            if self._privacy is PrivacyLevel.TEXT:
                time.sleep(0)  # redaction reads whole texts, and requests wait for the interpreter
        return payloads

    async def _write(self, batch: Sequence[Queued], spooled: int) -> list[Waiter]:
        """Write the records after `spooled` and return the waiters.

        With a full disk and an empty spool, use the stream.
        """
        waiters = self._note_spooled(batch[:spooled])
        batch = batch[spooled:]
        backoff = Backoff()
        while batch:
            payloads = [queued.payload for queued in batch]
            try:
                count = await self._in_thread(partial(self._spool.write, payloads))
            except OSError as error:
                if error.errno == errno.EFBIG:
                    self._refuse(batch[0].waiter, "it is too large")
                    batch = batch[1:]
                    continue
                self._note_full(error)
                if self._spool.pending == 0 and await self._stream.try_send(payloads):
                    self.streamed += len(payloads)
                    self._is_blocked = False
                    settle(waiters_of(batch))
                    return waiters
                self._is_blocked = True
                await backoff.wait()
                continue
            waiters += self._note_spooled(batch[:count])
            batch = batch[count:]
        return waiters

    def _note_spooled(self, batch: Sequence[Queued]) -> list[Waiter]:
        """Count records that are now in the spool, and return their waiters."""
        if batch:
            self.spooled += len(batch)
            self.error = None
            self._is_blocked = False
            self.has_spooled.set()
        return waiters_of(batch)

    def _refuse(self, waiter: Waiter | None, reason: str) -> None:
        """Drop one record, and report the reason to its waiter."""
        self.dropped += 1
        if waiter is not None:
            settle([waiter], StoreError(f"the decision cannot be logged: {reason}"))

    def _note_full(self, error: OSError) -> None:
        if self.error is None:
            logger.error("the spool cannot be written, decisions wait in memory (%s)", error.strerror)
        self.error = f"spool: {error.strerror}"

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def waiters_of(batch: Sequence[Queued]) -> list[Waiter]:
    return [queued.waiter for queued in batch if queued.waiter is not None]


def settle(waiters: Sequence[Waiter], error: StoreError | None = None) -> None:
    """Release waiting answers, or end them with `error`; one whose client has left is done already."""
    for waiter in waiters:
        resolve(waiter, None, error)
