"""The log's counters, as metrics export them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogStats:
    """Counts since this process started, in records.

    `pending` are appended and not yet in the stream, `dropped` were lost because neither disk nor memory had room,
    `gaps` are the stretches of consecutive lost records, `damaged` stretches of a spool that could not be read back.
    `last_error` is what stands in the way now; None while spool and stream both work.
    """

    appended: int = 0
    spooled: int = 0
    streamed: int = 0
    gaps: int = 0
    pending: int = 0
    dropped: int = 0
    damaged: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """Counts since this process started: rows that were new in SQL, repeated entries, entries given up.

    `last_error` is what stands in the way now; None while Redis and SQL both work.
    """

    written: int = 0
    repeated: int = 0
    dead: int = 0
    last_error: str | None = None
