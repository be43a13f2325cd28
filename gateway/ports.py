"""What the request path needs from the decision log and the database."""

from __future__ import annotations

from typing import Protocol

from gateway.decision_log.stats import LogStats
from router.types import DecisionRecord, Feedback


class DecisionSink(Protocol):
    """Where decisions go. One per gateway process; `replica` names this life of it.

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

    def recent(self, decision_id: str) -> DecisionRecord | None:
        """One of the last records, as the log keeps it, before it has reached the database."""
        ...

    def stats(self) -> LogStats: ...

    async def start(self) -> None: ...

    async def aclose(self) -> None:
        """Writes out what waits."""
        ...


class DecisionStore(Protocol):
    """The database. Calls block: run them in a thread. Raises StoreError."""

    def get_decision(self, decision_id: str) -> DecisionRecord | None: ...

    def put_feedback(self, feedback: Feedback) -> bool:
        """True when it is the first of its kind for that decision and key; otherwise it replaces the earlier value."""
        ...
