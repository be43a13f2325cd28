"""Identity of a question: when two decisions are about the same one."""

from __future__ import annotations

import hashlib

from router.text_identity import normalised_text
from router.types import DecisionRecord


def question_of(record: DecisionRecord) -> int:
    """A number (63 bits) for what was asked: equal for the same words, whatever their case and punctuation.

    A log that keeps no text is told by its keyed hash of the text, one that keeps no hash either by the embedding or
    its keyed hash. At level `none` without embeddings nothing links two asks, so each decision is a question.
    """
    asked: str | bytes = normalised_text(record.text) if record.text else record.text_hash or ""
    asked = asked or record.embedding or (record.inputs.features if record.inputs else "") or record.decision_id
    data = asked if isinstance(asked, bytes) else asked.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(b"question\0" + data).digest()
    return int.from_bytes(digest[:8], "big") >> 1
