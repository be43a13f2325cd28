"""Names of decisions in traces: a traced request's decision is named by its trace and its span, so that each is found
by the other, and nothing has to be stored."""

from __future__ import annotations

import re
from collections.abc import Mapping

DECISION = re.compile(r"dec-([0-9a-f]{32})([0-9a-f]{16})")
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
HOPS = 16
"""Spans that one request may name: its own ends with the digit 0, its calls of experts follow with 1, 2, ..."""


def decision_of(trace_id: str, span_id: str) -> str:
    """The id of the decision of a request, by any of its spans."""
    return f"dec-{trace_id}{span_id[:-1]}0"


def span_of(decision_id: str) -> tuple[str, str] | None:
    """Trace and span of a decision; None where the request was not traced."""
    found = DECISION.fullmatch(decision_id)
    return None if found is None else (found[1], found[2])


def trace_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The trace that a client's request belongs to, by the header of W3C Trace Context."""
    found = TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    return None if found is None else found[1].decode()
