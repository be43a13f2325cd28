"""A check, before an expert is asked, that a record could be made safe now. Without it, an answer could be paid for and
then end in 503 because its row cannot be written. Only the modes that wait need it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from coe.base.errors import StoreError
from coe.decision_log.spool import Spool
from coe.decision_log.spool_writer import SpoolWriter
from coe.decision_log.stream import DecisionStream
from coe.fleet.tasks import stop_task

LOOK_EVERY_S = 1.0
LOOK_TIMEOUT_S = 2.0
PROBE_EVERY_S = 10.0

logger = logging.getLogger(__name__)


class CommitCheck:
    """Looks at the disk, and while that is full at Redis, whose word then counts. `problem` is what was found last;
    None where records become safe.

    Args:
        spool: opened by the caller.
        writer: knows of records that wait for the disk.
        stream: of the log; knows what Redis would evict.
        executor: in which all calls of the spool are made.
        try_redis: puts an entry larger than a record's into the stream; False when Redis does not take it.
    """

    def __init__(
        self,
        spool: Spool,
        writer: SpoolWriter,
        stream: DecisionStream,
        executor: Executor,
        try_redis: Callable[[], Awaitable[bool]],
    ) -> None:
        self._spool = spool
        self._writer = writer
        self._stream = stream
        self._executor = executor
        self._try_redis = try_redis
        self._looking: asyncio.Task[None] | None = None
        self._looked = time.monotonic()
        self.problem: str | None = None

    async def check(self) -> None:
        """Costs microseconds while all is well; otherwise looks again, and once it has refused at most once in
        `LOOK_EVERY_S`.

        Raises:
            StoreError: no record can be made safe.
        """
        if self._is_doubtful:
            await self._look()
        if self.problem is not None:
            raise StoreError(f"the decision log cannot be written ({self.problem})", is_retryable=True)

    def doubt(self, reason: str) -> None:
        """A commit failed."""
        self._found(reason)

    async def run(self) -> None:
        """Keeps looking, so that `/readyz` is right without traffic."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._is_doubtful or time.monotonic() - self._looked >= PROBE_EVERY_S:
                await self._look()

    async def aclose(self) -> None:
        await stop_task(self._looking)

    @property
    def _is_doubtful(self) -> bool:
        is_evicting = self._stream.evicts_by is not None
        return self.problem is not None or is_evicting or self._writer.is_blocked or self._spool.lacks_room()

    async def _look(self) -> None:
        """All who ask at once share one look."""
        # Only a refusal is good for a while: what a full disk took a moment ago may have been the last.
        is_fresh = self.problem is not None and time.monotonic() - self._looked < LOOK_EVERY_S
        if self._looking is None or (self._looking.done() and not is_fresh):
            self._looking = asyncio.create_task(self._probe(), name="decision-log-check")
        if self._looking is not None and (await asyncio.wait([self._looking], timeout=LOOK_TIMEOUT_S))[1]:
            self._found("the disk is too slow")

    async def _probe(self) -> None:
        problem = self._stream.eviction_problem or await self._disk_problem()
        self._looked = time.monotonic()
        self._found(problem)

    async def _disk_problem(self) -> str | None:
        if self._writer.is_blocked:
            return self._writer.error  # it retries disk and Redis on its own
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._spool.probe)
        except OSError as error:
            is_safe_in_redis = self._spool.pending == 0 and await self._try_redis()
            return None if is_safe_in_redis else f"spool: {error.strerror}"
        return None

    def _found(self, problem: str | None) -> None:
        if (problem is None) != (self.problem is None):
            if problem is None:
                logger.info("the decision log can be written again")
            else:
                logger.error("no request is taken: the decision log cannot be written (%s)", problem)
        self.problem = problem
