"""The fake of the decision log: keeps records in memory, and where there is a database there at once."""

from __future__ import annotations

import itertools

from coe.base.errors import StoreError
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.sink import LogStats


class MemoryLog:
    """Every record appended, in order, in `records`."""

    def __init__(self, replica: str = "memory", store: Database | None = None) -> None:
        self.replica = replica
        self.store = store
        self.is_durable = False
        self.problem: str | None = None
        self.detour: str | None = None
        self.records: list[DecisionRecord] = []
        self._seqs = itertools.count()

    def next_seq(self) -> int:
        return next(self._seqs)

    def append(self, record: DecisionRecord) -> None:
        self.records.append(record)
        if self.store is not None:
            self.store.write_decisions([record])

    async def commit(self, record: DecisionRecord) -> None:
        self.append(record)

    def check(self) -> None:
        """Raises StoreError where a test has set a `problem`."""
        if self.problem is not None:
            raise StoreError(f"the decision log cannot be written ({self.problem})", is_retryable=True)

    def stats(self) -> LogStats:
        return LogStats(appended=len(self.records))

    async def start(self) -> None:
        """Nothing to start."""

    async def aclose(self) -> None:
        """Nothing to close."""
