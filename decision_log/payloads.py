"""A decision record as spool and stream carry it: its JSON in one line and, behind a line break, its embedding's bytes.

It is encoded once; SQL gets the same line. An embedding as base64 would be a third larger and decoded at every reader.
"""

from __future__ import annotations

from typing import NamedTuple

from decision_log.decision_record import DecisionRecord, read_record


class Logged(NamedTuple):
    """A record as it was read back, and its parts as SQL keeps them."""

    record: DecisionRecord  # its embedding apart
    line: str
    embedding: bytes | None = None


def to_payload(record: DecisionRecord) -> bytes:
    """Raises ValueError: JSON cannot hold it."""
    line = record.model_dump_json(exclude={"embedding"}).encode()
    return line if record.embedding is None else b"%b\n%b" % (line, record.embedding)


def json_line(payload: bytes) -> bytes:
    """The JSON of a payload."""
    return payload.partition(b"\n")[0]


def from_payload(payload: bytes) -> Logged:
    """Raises ValidationError."""
    line, _, embedding = payload.partition(b"\n")
    return Logged(read_record(line), line.decode(), embedding or None)
