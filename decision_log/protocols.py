"""The decision log as the request path needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from router.types import DecisionRecord


@dataclass(frozen=True, slots=True)
class LogStats:
    """Counts since this process started, in records.

    `pending` are appended and not yet in the stream, `dropped` were lost because neither disk nor memory had room,
    `gaps` are the stretches of consecutive lost records, `damaged` stretches of a spool that could not be read back.
    `last_error` is the present obstacle; None while spool and stream both work.
    """

    appended: int = 0
    spooled: int = 0
    streamed: int = 0
    gaps: int = 0
    pending: int = 0
    dropped: int = 0
    damaged: int = 0
    last_error: str | None = None


class DecisionSink(Protocol):
    """Place where decisions go. One per gateway process; `replica` names this run of it.

    `is_durable` is true when the end of an answer has to wait for `commit`.
    """

    replica: str
    is_durable: bool

    def next_seq(self) -> int:
        """The number of the next record; every number is appended once."""
        ...

    def append(self, record: DecisionRecord) -> None:
        """Takes a record. Never blocks and never raises."""
        ...

    async def commit(self, record: DecisionRecord) -> None:
        """Takes a record and returns when it outlives the machine's power. Raises StoreError when it does not."""
        ...

    @property
    def problem(self) -> str | None:
        """Obstacle to answers that wait for `commit`, as last seen; None where nothing does."""
        ...

    async def check(self) -> None:
        """Before an expert is asked. Raises StoreError when the answer's row could not be made safe now."""
        ...

    def recent(self, decision_id: str) -> DecisionRecord | None:
        """One of the last records, as the log keeps it, before it has reached the database."""
        ...

    def stats(self) -> LogStats: ...

    async def start(self) -> None: ...

    async def aclose(self) -> None:
        """Writes out what waits."""
        ...
