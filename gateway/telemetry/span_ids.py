"""Ids of spans from which those of decisions follow."""

from __future__ import annotations

import secrets
import time

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from gateway.telemetry.trace_ids import HOPS


class SpanIds(RandomIdGenerator):
    """Ids of spans: a request's ends with the digit 0, and its calls of experts count up from there. A new trace begins
    with the time, so that the rows of its decisions are neighbours in the database's index.

    Used on the event loop alone.
    """

    def __init__(self) -> None:
        self._next: int | None = None

    def follow(self, request: int, number: int) -> None:
        """The next span is that call of a request; from the sixteenth on, none that names it."""
        self._next = request + number if number < HOPS else None

    def generate_span_id(self) -> int:
        found, self._next = self._next, None
        return found or super().generate_span_id() & ~(HOPS - 1) or HOPS

    def generate_trace_id(self) -> int:
        return time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
