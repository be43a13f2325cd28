"""The part of experts.yaml about the decision log."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from coe.base.redis_names import DECISIONS
from coe.router.section import Section


class PrivacyLevel(StrEnum):
    """Parts of a query that the log keeps."""

    NONE = "none"
    HASH = "hash"
    TEXT = "text"


class Durability(StrEnum):
    """The step that the end of an answer waits for; docs/decision-log.md has what each may lose."""

    ASYNC = "async"
    BATCHED = "batched"
    SYNC = "sync"


class LogConfig(Section):
    """The decision log: spool, stream, SQL."""

    privacy: PrivacyLevel = PrivacyLevel.HASH
    embeddings: bool = Field(default=True, description="keep what each decision was made from, for replay and retrain")
    durability: Durability = Durability.ASYNC
    batch_ms: ClassVar = 10.0  # batched: at most one fsync in this time
    stream: str = Field(default=DECISIONS, min_length=1, pattern=r"^[^{}]*(\{[^{}]+\}[^{}]*)?$")
    stream_max_entries: ClassVar = 1_000_000  # wait in Redis while SQL is away, what comes then in the spool
    keep_days: float | None = Field(default=None, gt=0, description="decisions older than this are removed from SQL")
    spool_max_mb: int = Field(default=512, ge=1)
    queue_max_records: ClassVar = 20_000  # that may wait in memory for the disk
