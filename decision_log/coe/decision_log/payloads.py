"""Payloads of spool and stream: a record's JSON in one line and, after a line break, the bytes of its embedding.

A record is encoded once; SQL gets the same line. An embedding as base64 would be a third larger and decoded by every
reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from math import isfinite
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from coe.base.json_text import to_json
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.privacy import tenant_of

NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
"""The escape of NUL in JSON. After an odd number of backslashes the same characters are text."""

NO_CHANGES: Mapping[str, object] = MappingProxyType({})


class Part(BaseModel):
    """The fields of a record that SQL has columns or sums for, or that erasure reads."""

    model_config = ConfigDict(frozen=True, cache_strings="keys")  # values, ids for the most part, do not come again


class ChoicePart(Part):
    expert: str
    category: str
    reason: str
    router_version: str
    policy: str | None = None
    is_fallback: bool


class InputsPart(Part):
    encoder: str


class UsagePart(Part):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    kinds: dict[str, int] = {}

    def of(self, kinds: Iterable[str]) -> int:
        """Return the tokens of some kinds together."""
        return sum(self.kinds.get(kind, 0) for kind in kinds)


class RecordPart(Part):
    """The fields of a `DecisionRecord` that its row in SQL needs. Validating the whole record takes twice as long."""

    decision_id: str
    replica: str
    seq: int = Field(ge=0)
    at: float
    state: str
    decision: ChoicePart | None
    served_expert: str | None = None
    usage: UsagePart = UsagePart()
    cost_usd: float = 0.0
    session_id: str | None = None
    key_id: str | None = None
    is_probe: bool = False
    loop: Part | None = None
    text_hash: str | None = None
    inputs: InputsPart | None = None

    @property
    def tenant(self) -> str:
        """The team of the key."""
        return tenant_of(self.key_id)


class Logged(NamedTuple):
    """A record on its way to SQL: the fields of its columns, its line and its embedding."""

    record: RecordPart
    line: str
    embedding: bytes | None = None


def to_payload(record: DecisionRecord, changes: Mapping[str, object] = NO_CHANGES) -> bytes:
    """Encode a record for storage; pydantic's own encoder takes three times as long.

    Args:
        changes: fields whose stored value differs from the record's.

    Raises:
        ValueError: JSON cannot represent it.
    """
    values = {**vars(record), **changes}
    embedding = values.pop("embedding")
    line = to_json(values, vars if is_plain(record) else None)
    if b"\\u0000" in line:  # Postgres reads no JSON with a NUL: one that somebody sent would end all lists and sums
        line = NUL.sub(rb"\1\\ufffd", line)
    return line if embedding is None else b"%b\n%b" % (line, embedding)


def is_plain(record: DecisionRecord) -> bool:
    """Return whether a record surely has no NaN or infinity, by the sum of its numbers; False for rare parts."""
    decision = record.decision
    if record.retrieval or record.strategy:
        return False
    if decision is None:
        return True
    of_experts = (decision.eligible_probs, decision.predicted_quality, decision.excluded_quality)
    means = (decision.predicted_cost_usd, decision.predicted_wait_ms, decision.category_probs.values())
    alone = (decision.confidence, decision.uncertainty, decision.threshold, decision.propensity)
    return decision.asleep is None and isfinite(sum(filter(None, chain(*of_experts, *means, alone))))


def json_line(payload: bytes) -> bytes:
    """Return the JSON of a payload."""
    return payload.partition(b"\n")[0]


def from_payload(payload: bytes) -> Logged:
    """Parse a payload; may raise ValidationError."""
    line, _, embedding = payload.partition(b"\n")
    return Logged(RecordPart.model_validate_json(line), line.decode(), embedding or None)
