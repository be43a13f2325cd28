"""Protocols of the decision log and the database, as the request path needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from decision_log.feedback_types import DocumentFeedback, Feedback, ImplicitSignal, JudgedAnswer
from decision_log.listed import DecisionFilter, Page, Place, Spend
from router.feedback_config import FeedbackConfig
from router.types import DecisionRecord


class FeedbackStatus(StrEnum):
    """Fate of a piece of feedback."""

    ACCEPTED = "accepted"
    REPLACED = "replaced"  # the same key had said something else of that kind
    REPEATED = "repeated"  # or just the same
    OVER_HOUR = "over_hour"  # refused: that key has said enough for an hour
    OVER_DECISION = "over_decision"  # refused: or of this decision
    ERASED = "erased"  # refused: the decision is gone


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


class DecisionDatabase(Protocol):
    """The database. Calls block: run them in a thread. Raises StoreError."""

    def get_decision(self, decision_id: str) -> DecisionRecord | None: ...

    def decisions_of_trace(self, trace_id: str) -> Sequence[str]:
        """The ids of up to two decisions of an OpenTelemetry trace, 32 hexadecimal digits."""
        ...

    def list_decisions(self, tenant: str, wanted: DecisionFilter, *, limit: int, after: Place | None = None) -> Page:
        """Decisions of a team, newest first."""
        ...

    def spend(self, tenant: str | None, since: float, until: float | None) -> tuple[Spend, ...]:
        """Sums by key; of every team where `tenant` is None."""
        ...

    def put_document_feedback(
        self, feedback: DocumentFeedback, caps: FeedbackConfig, about: DecisionRecord
    ) -> FeedbackStatus: ...

    def put_feedback(self, feedback: Feedback, caps: FeedbackConfig, about: DecisionRecord) -> FeedbackStatus:
        """Keeps one value per decision, kind and key, unless the key is over a cap or the decision was erased."""
        ...

    def get_feedback(self, decision_id: str) -> tuple[Feedback, ...]: ...

    def get_signals(self, decision_id: str) -> tuple[ImplicitSignal, ...]: ...

    def put_judgements(self, judgements: Sequence[JudgedAnswer]) -> None:
        """Keeps what a judge said; of the same answer again nothing changes."""
        ...
