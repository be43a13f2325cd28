"""Answers as experts give them."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.answer_reader import JsonAnswer
from router.protocols import ChunkStream

EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """A stream whose first piece is here. Close `chunks` in any case.

    Args:
        is_native: the expert got the client's own request and answers on its wire.
        hides_usage: the gateway asked for the usage that the stream may report; its client did not.
        queue_ms: how long the request waited for a place at its expert; None where that has no limit.
    """

    expert: str
    content_type: str
    first: bytes
    chunks: ChunkStream
    is_native: bool = False
    hides_usage: bool = False
    queue_ms: float | None = None


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """A complete answer with its usage and finish reason."""

    expert: str
    content_type: str
    body: bytes
    facts: JsonAnswer
    is_native: bool = False
    queue_ms: float | None = None
