"""A consumer from the Redis stream to SQL. It writes each decision once, and acknowledges it only after the commit.

It claims entries of a dead consumer after `min_idle_ms`. An entry that five deliveries did not bring into SQL goes to
the stream `<name>:dead`; an unavailable database does not count as a delivery.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from coe.base.errors import StoreError, reason_of
from coe.decision_log.database import Database
from coe.decision_log.ledger import Ledger
from coe.decision_log.payloads import Logged
from coe.decision_log.redis_client import REDIS_ERRORS, ResponseError, connect
from coe.decision_log.replica_status import ReplicaStatus
from coe.decision_log.stream import GROUP, Backoff
from coe.decision_log.stream_entries import Content, Entry, content_of, dead_stream, entries_of
from coe.fleet.processes.tasks import stop_task

if TYPE_CHECKING:
    from redis.typing import EncodableT, FieldT

BATCH_RECORDS = 400
"""Records of one transaction, more if the last entries had more: about 2 ms of Python in the writing thread."""
READ_GROUPS, READ_SINGLES = 8, 64
"""Entries per reply if the last ones had several records, so that a reply stays within megabytes, and otherwise."""
TURN_RECORDS = 25
"""Records parsed in one turn of the event loop, about 0.2 ms, so that requests are not delayed."""
LINGER_S = 0.2
"""Seconds to wait for more records after a small batch: one commit for many costs as much as for one."""
BLOCK_MS = 1000
MIN_IDLE_MS = 15_000
MAX_DELIVERIES = 5
MAX_PENDING = 1000
DEAD_MAX_ENTRIES = 10_000

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class ConsumerStats:
    """Counts of records since the start; `last_error` is the current obstacle, None while Redis and SQL work."""

    written: int = 0
    repeated: int = 0
    dead: int = 0
    last_error: str | None = None


class Consumer:
    """A member of the consumer group. Any number may run, in any number of processes.

    Args:
        redis_url: as `decision_log.redis_client.connect` takes it.
        stream: key of the stream.
        database: closed by the caller, after `aclose`.
        name: unique among live consumers; the replica's name is.

    Raises:
        ConfigError: the URL is not a Redis URL.
    """

    def __init__(
        self,
        *,
        redis_url: str,
        stream: str,
        database: Database,
        name: str,
        block_ms: int = BLOCK_MS,
        min_idle_ms: int = MIN_IDLE_MS,
    ) -> None:
        self._redis = connect(redis_url)
        self._stream = stream
        self._dead_stream = dead_stream(stream)
        self._database = database
        self._ledger = Ledger(database)
        self._name = name
        self._block_ms = block_ms
        self._min_idle_ms = min_idle_ms
        self._next_claim = 0.0  # on the monotonic clock
        self._has_group = False
        self._read_entries = READ_GROUPS
        self._held: list[Entry] = []  # delivered and not yet in SQL because the database is away
        self._task: asyncio.Task[None] | None = None
        self._stats = ConsumerStats()

    def stats(self) -> ConsumerStats:
        """Return a copy of the current counts."""
        return replace(self._stats)

    async def start(self) -> None:
        """Start consuming; Redis and SQL may be unavailable."""
        self._task = asyncio.create_task(self._run(), name="decision-log-consumer")

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Write what is in the stream now, for at most `timeout_s`, and leave the group."""
        await stop_task(self._task)
        self._task = asyncio.create_task(self._finish(), name="decision-log-consumer-end")
        if (await asyncio.wait([self._task], timeout=timeout_s))[1]:
            logger.warning("the consumer ends before the stream is empty")
        await stop_task(self._task)
        await self._redis.aclose()

    async def _finish(self) -> None:
        """Write what is in the stream and leave the group."""
        try:
            while await self._step(block_ms=None):
                pass
            await self._settle(await self._read(None, start="0"))  # what came just when this consumer was stopped
            await self._leave_group()
        except (*REDIS_ERRORS, StoreError) as error:
            logger.warning("the consumer ends before the stream is empty (%s)", reason_of(error))

    async def drain(self) -> ConsumerStats:
        """Consume until nothing waits in the stream, not even for other consumers; do not combine with `start`.

        Raises:
            StoreError: the database fails; nothing is lost.
            RedisError: Redis does not answer.
        """
        while await self._step(block_ms=None) or await self._claim(min_idle_ms=0):
            pass
        return self.stats()

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                count = await self._step(block_ms=self._block_ms)
                backoff.reset()
                if self._stats.last_error is not None:
                    logger.info("decisions go from the stream to SQL again")
                self._stats.last_error = None
                if count < BATCH_RECORDS:
                    await asyncio.sleep(LINGER_S)  # a commit for many costs what one for a single row does
            except (*REDIS_ERRORS, StoreError) as error:
                self._note(error)
                await backoff.wait()
            except Exception as error:
                logger.exception("the consumer continues after a fault")
                self._note(error)
                await backoff.wait()

    def _note(self, error: Exception) -> None:
        if self._stats.last_error is None:
            logger.warning("decisions wait in the stream (%s)", reason_of(error))
        self._stats.last_error = reason_of(error)

    async def _step(self, *, block_ms: int | None) -> int:
        """Write one batch to SQL and return its size; 0 if none came within `block_ms` (None: do not wait).

        Raises:
            StoreError: the database is unavailable; the next call tries the same batch first.
            RedisError, OSError: Redis is unavailable; the batch stays pending in the group.
        """
        if not self._held:
            if not self._has_group:
                await self._make_group()
            if time.monotonic() >= self._next_claim:
                self._next_claim = time.monotonic() + self._min_idle_ms / 1000
                await self._claim(min_idle_ms=self._min_idle_ms)
            self._held = await self._read(block_ms)
            while 0 < len(self._held) < BATCH_RECORDS and (more := await self._read(None)):
                self._held += more
        count = len(self._held)
        await self._settle(self._held)
        self._held = []
        return count

    async def _make_group(self) -> None:
        try:
            await self._redis.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._has_group = True

    async def _read(self, block_ms: int | None, start: str = ">") -> list[Entry]:
        """Read new entries, or from "0" on, those that this consumer received and has not acknowledged."""
        try:
            answer: Any = await self._redis.xreadgroup(
                GROUP, self._name, {self._stream: start}, count=self._read_entries, block=block_ms
            )
        except ResponseError as error:
            # NOGROUP: Redis came back without its data; UNBLOCKED: the stream was deleted while we waited.
            self._has_group = not str(error).startswith(("NOGROUP", "UNBLOCKED"))
            raise
        return self._entries_of(answer[0][1]) if answer else []

    def _entries_of(self, rows: Sequence[Any]) -> list[Entry]:
        """Return the entries of a reply, and set the size of the next reply by them."""
        entries = entries_of(rows)
        if entries:
            self._read_entries = READ_GROUPS if len(entries) > len(rows) else READ_SINGLES
        return entries

    async def _settle(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write entries and acknowledge those that are in SQL or gone; return the others, which stay pending."""
        left: list[Entry] = []
        parsed: list[tuple[Entry, Content]] = []
        for start in range(0, len(entries), TURN_RECORDS):
            for entry in entries[start : start + TURN_RECORDS]:
                if (content := content_of(entry)) is not None:
                    parsed.append((entry, content))
                elif entry.payload is not None:
                    left.append(entry)
            await asyncio.sleep(0)
        if parsed:
            left += await asyncio.to_thread(self._write_all, parsed)
        if done := {entry.id for entry in entries} - {entry.id for entry in left}:
            await self._acknowledge(done)
        return left

    async def _acknowledge(self, ids: Collection[bytes]) -> None:
        """Delete entries that are in SQL, so that the stream holds no text longer than needed."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.xack(self._stream, GROUP, *ids)
            pipeline.xdel(self._stream, *ids)
            await pipeline.execute()

    def _write_all(self, parsed: Sequence[tuple[Entry, Content]]) -> list[Entry]:
        """Write entries and return those that the database rejects; raise StoreError if it is unavailable."""
        records = [(entry, content) for entry, content in parsed if isinstance(content, Logged)]
        left = self._write(records) if records else []
        for entry, content in parsed:
            try:
                if isinstance(content, ReplicaStatus):
                    self._ledger.note_replicas([content])
            except StoreError as error:
                if error.is_retryable:
                    raise
                logger.error("entry %s cannot be written (%s)", entry.id, error)
                left.append(entry)
        return left

    def _write(self, parsed: Sequence[tuple[Entry, Logged]]) -> list[Entry]:
        """Write records and return the entries that the database rejects; raise StoreError if it is unavailable."""
        try:
            new = self._database.write_decisions([logged for _, logged in parsed])
        except StoreError as error:
            if error.is_retryable:
                raise
            if len(parsed) == 1:
                logger.error("decision %s cannot be written (%s)", parsed[0][1].record.decision_id, error)
                return [parsed[0][0]]
            # One record that the database refuses must not hold up the others.
            return [left for one in parsed for left in self._write([one])]
        self._stats.written += new
        self._stats.repeated += len(parsed) - new
        return []

    async def _claim(self, *, min_idle_ms: int) -> int:
        """Claim entries that were delivered at least `min_idle_ms` ago and not acknowledged; return how many.

        Entries with too many deliveries go to the dead-letter stream after one more try, because earlier deliveries may
        have met an unavailable database.
        """
        count, start = 0, b"0-0"
        while True:
            answer: Any = await self._redis.xautoclaim(
                self._stream, GROUP, self._name, min_idle_ms, start_id=start, count=self._read_entries
            )
            start, entries = answer[0], self._entries_of(answer[1])
            if entries:
                deliveries = await self._deliveries(entries)
                left = await self._settle(entries)
                await self._bury([entry for entry in left if deliveries.get(entry.id, 0) > MAX_DELIVERIES])
                count += len(entries)
            if start == b"0-0":
                return count

    async def _deliveries(self, entries: Sequence[Entry]) -> dict[bytes, int]:
        """Return the number of deliveries of each entry, including the current one."""
        rows: Any = await self._redis.xpending_range(
            self._stream, GROUP, entries[0].id, entries[-1].id, MAX_PENDING, consumername=self._name
        )
        return {row["message_id"]: row["times_delivered"] for row in rows}

    async def _bury(self, entries: Sequence[Entry]) -> None:
        """Move entries to the dead-letter stream, each record as an entry of its own."""
        of_id: dict[bytes, list[Entry]] = defaultdict(list)
        for entry in entries:
            of_id[entry.id].append(entry)
        for entry_id, left in of_id.items():
            async with self._redis.pipeline(transaction=True) as pipeline:
                for entry in left:
                    fields: dict[FieldT, EncodableT] = {entry.field: entry.payload or b""}
                    pipeline.xadd(self._dead_stream, fields, maxlen=DEAD_MAX_ENTRIES, approximate=True)
                pipeline.xack(self._stream, GROUP, entry_id)
                pipeline.xdel(self._stream, entry_id)
                await pipeline.execute()
            self._stats.dead += len(left)
            logger.error("entry %s went to %s after %d deliveries", entry_id, self._dead_stream, MAX_DELIVERIES)

    async def _leave_group(self) -> None:
        """Remove this consumer's name from the group, unless entries are pending: Redis would drop them."""
        summary: Any = await self._redis.xpending_range(self._stream, GROUP, "-", "+", 1, consumername=self._name)
        if not summary:
            await self._redis.xgroup_delconsumer(self._stream, GROUP, self._name)
