"""The decision log of one gateway process: `append` takes a record in about a microsecond and writes it later.

A record goes from a bounded queue in memory to the spool (group commit, in a thread) and from there to the stream. In
the modes `batched` and `sync`, requests call `commit` instead, which returns when the record is on disk.
docs/decision-log.md says what each mode may lose.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from coe.base.errors import StoreError, reason_of
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.leftovers import send_leftovers, send_next
from coe.decision_log.privacy import load_key
from coe.decision_log.replica_status import BEAT_S, DecisionCount, ReplicaState, ReplicaStatus
from coe.decision_log.spool import Spool, spooled_bytes
from coe.decision_log.spool_writer import SpoolWriter
from coe.decision_log.stream import STATUS_FIELD, Backoff, DecisionStream
from coe.fleet.processes.tasks import stop_task
from coe.router.config.log import Durability, LogConfig

SEND_LINGER_S = 0.1
"""Seconds to wait for more records before sending: they are safe on disk, and larger groups cost less each."""
LEFTOVERS_EVERY_S = 30.0
FLUSH_TIMEOUT_S = 5.0
SPOOL_FOLDER = "spool"

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogStats:
    """Counts since the process started, in records.

    `pending` are appended and not yet in the stream; `dropped` were lost because both disk and memory were full.
    `last_error` is the current obstacle; None while decisions reach SQL.
    """

    appended: int = 0
    spooled: int = 0
    streamed: int = 0
    pending: int = 0
    dropped: int = 0
    last_error: str | None = None


class DecisionLog:
    """The destination of decisions, one per gateway process; `replica` names this run.

    `is_durable` is true if the end of an answer has to wait for `commit`.

    Args:
        data_dir: has `spool/<replica>/` and the key of hashes.
        redis_url: as `decision_log.redis_client.connect` takes it.
        config: the `log` section of experts.yaml.

    Raises:
        ConfigError: the URL is not a Redis URL, or the key of hashes cannot be read or created.
    """

    def __init__(self, *, data_dir: Path, redis_url: str, config: LogConfig) -> None:
        self.replica = new_replica()
        self._root = data_dir / SPOOL_FOLDER
        self._max_bytes = config.spool_max_mb * 1024 * 1024
        self.is_durable = config.durability is not Durability.ASYNC
        self._spool = Spool(self._root / self.replica, max_bytes=self._max_bytes, is_durable=self.is_durable)
        self._stream = DecisionStream(redis_url, name=config.stream, max_entries=config.stream_max_entries)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coe-spool")
        self._numbered = DecisionCount(is_durable=self.is_durable)
        self._queue = SpoolWriter(self._spool, self._stream, self._executor, config, load_key(data_dir), self._numbered)
        self._is_closing = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._appended = self._streamed = 0
        self._loop_error: str | None = None

    def next_seq(self) -> int:
        """Return the sequence number of the next record. Every number must be appended once, in any order."""
        return self._numbered.take()

    def append(self, record: DecisionRecord) -> None:
        """Queue the record. It never blocks or raises; if the queue is full, the record is lost and counted."""
        self._appended += 1
        self._queue.put(record)

    async def commit(self, record: DecisionRecord) -> None:
        """Queue the record and return when it is safe; raise StoreError if that takes too long."""
        self._appended += 1
        await self._queue.commit(record)

    def check(self) -> None:
        """Check, before an expert is called, that an answer could be made safe now.

        Otherwise the answer would be paid for and then fail because its row cannot be written.

        Raises:
            StoreError: it could not.
        """
        if (problem := self.problem) is not None:
            raise StoreError(f"the decision log cannot be written ({problem})", is_retryable=True)

    @property
    def problem(self) -> str | None:
        """The obstacle to making answers safe; None if there is none or they need not wait for their rows."""
        if not self.is_durable:
            return None
        if (known := self._stream.eviction_problem or self._queue.obstacle) is not None:
            return known
        is_stuck = self._stream.last_error is not None and self._spool.lacks_room()
        return f"spool: {os.strerror(errno.ENOSPC)}" if is_stuck else None

    @property
    def detour(self) -> str | None:
        """The place where decisions wait and the reason, as last seen; None if they reach SQL."""
        error = self._queue.error
        return self._stream.detour if error is None else f"decisions wait in memory or go straight to Redis ({error})"

    def stats(self) -> LogStats:
        queue = self._queue
        streamed = self._streamed + queue.streamed
        return LogStats(
            appended=self._appended,
            spooled=queue.spooled,
            streamed=streamed,
            pending=self._appended - streamed - queue.dropped,
            dropped=queue.dropped,
            last_error=queue.error or self._stream.detour or self._loop_error,
        )

    async def start(self) -> None:
        """Open the spool and start the background tasks; Redis may be unavailable.

        Raises:
            StoreError: the spool's folder cannot be created or written, or Redis may evict rows that answers wait for.
        """
        await self._stream.look()
        if self.is_durable and (problem := self._stream.eviction_problem) is not None:
            raise StoreError(f"log.durability promises rows that would not be safe: {problem}")
        try:
            await self._in_thread(self._open)
        except OSError as error:
            raise StoreError(f"spool {self._spool.folder} cannot be made ({error.strerror})") from error
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "writer": self._queue.run,
            "sender": self._send_all,
            "leftovers": self._find_leftovers,
            "beat": self._beat,
        }
        for name, loop in loops.items():
            self._tasks[name] = asyncio.create_task(self._guarded(loop), name=f"decision-log-{name}")

    async def aclose(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Write the queue and send the spool; what Redis does not take in time stays for the next start."""
        self._is_closing = True
        self._queue.close()
        flushing = [task for name, task in self._tasks.items() if name in ("writer", "sender")]
        if flushing and (await asyncio.wait(flushing, timeout=timeout_s))[1]:
            logger.warning("%d decisions wait in %s for the next start", self._spool.pending, self._root)
        for task in self._tasks.values():
            await stop_task(task)
        await self._in_thread(partial(self._close_spool, must_stay=not await self._say_goodbye()))
        self._executor.shutdown()
        unsaved = self.stats().pending - self._spool.pending
        if unsaved:
            self._queue.dropped += unsaved
            logger.error("%d decisions are lost: neither disk nor Redis took them before the end", unsaved)
        await self._stream.aclose()

    def _open(self) -> None:
        self._share_room()
        self._spool.open()
        self._numbered.open(self._spool.folder)

    def _close_spool(self, *, must_stay: bool) -> None:
        with suppress(OSError):  # then this replica will count as killed, with its right number of decisions
            self._numbered.close()
        self._spool.close(must_stay=must_stay)

    async def _say_goodbye(self) -> bool:
        """Send the final count of decisions; return False to leave the count and the spool to another replica."""
        if not self._tasks or self._spool.pending or self._stream.last_error is not None:
            return not self._tasks
        return await self._tell(ReplicaState.ENDED)

    async def _beat(self) -> None:
        """Send the count of decisions periodically."""
        while True:
            await self._tell(ReplicaState.RUNNING)
            await asyncio.sleep(BEAT_S)
            await self._stream.look()

    async def _tell(self, state: ReplicaState) -> bool:
        numbered = self._numbered
        status = ReplicaStatus(
            replica=self.replica, decisions=numbered.value, settled=numbered.settled, state=state, at=time.time()
        )
        return await self._stream.try_send([status.model_dump_json().encode()], STATUS_FIELD)

    def _share_room(self) -> None:
        """Limit this spool to what the others in the data folder leave of `log.spool_max_mb`."""
        self._spool.max_bytes = max(0, self._max_bytes - spooled_bytes(self._root, without=self.replica))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def _guarded(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a task's loop, and restart it after an unforeseen error."""
        backoff = Backoff()
        while True:
            try:
                await loop()
                return
            except Exception as error:
                logger.exception("the decision log continues after a fault")
                self._loop_error = reason_of(error)
                await backoff.wait()

    async def _send_all(self) -> None:
        """Send the spool to the stream, until everything is written and sent."""
        while True:
            is_last = self._queue.is_done
            self._queue.has_spooled.clear()
            while count := await send_next(self._spool, self._stream, self._executor):
                self._streamed += count
                self._loop_error = None
            if is_last:
                return
            if not self._queue.is_done:
                await self._queue.has_spooled.wait()
                # They are safe on the disk, and those that are sent together cost less.
                await asyncio.sleep(0 if self._is_closing else SEND_LINGER_S)

    async def _find_leftovers(self) -> None:
        """Send what dead replicas left in their spools, periodically."""
        while True:
            try:
                sent = await send_leftovers(self._root, self._stream)
            except OSError as error:
                logger.warning("a spool that an earlier process left cannot be read (%s)", reason_of(error))
            else:
                if sent:
                    logger.info("sent %d decisions that an earlier process had left in the spool", sent)
            await self._in_thread(self._share_room)
            await asyncio.sleep(LEFTOVERS_EVERY_S)


def new_replica() -> str:
    """Return a unique name for this run: host, process id and a random part."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:32]
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
