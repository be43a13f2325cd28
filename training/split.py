"""Train, valid or test: by hash of the normalised text, so near-duplicates never cross and every run agrees."""

from __future__ import annotations

import hashlib
from typing import Literal

from router.text_identity import normalised_text

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
