"""Split into train, valid and test by hash of the normalised text, and the identity of a logged question: so
near-duplicates never cross, and every run agrees."""

from __future__ import annotations

import hashlib
from typing import Literal

from base.text_identity import normalised_text
from decision_log.decision_record import DecisionRecord

SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
TEST_PERCENT = 20
VALID_PERCENT = 10


def split_of(text: str) -> SplitName:
    """70% train, 10% valid, 20% test of distinct texts."""
    bucket = (
        int.from_bytes(hashlib.sha256(normalised_text(text).encode("utf-8", "surrogatepass")).digest()[:8], "big") % 100
    )
    if bucket < TEST_PERCENT:
        return "test"
    return "valid" if bucket < TEST_PERCENT + VALID_PERCENT else "train"


def question_of(record: DecisionRecord) -> int:
    """A number (63 bits) for what was asked: equal for the same words, whatever their case and punctuation.

    A decision without text is identified by its keyed hash of the text, one without a hash by the embedding or
    its keyed hash. At level `none` without embeddings nothing links two asks, so each decision is a question.
    """
    asked: str | bytes = normalised_text(record.text) if record.text else record.text_hash or ""
    asked = asked or record.embedding or (record.inputs.features if record.inputs else "") or record.decision_id
    data = asked if isinstance(asked, bytes) else asked.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(b"question\0" + data).digest()
    return int.from_bytes(digest[:8], "big") >> 1
