"""Files, stores and chunks as the catalog hands them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from gateway.retrieval.filters import Scalar

DAY_S = 86_400.0


class FileStatus(StrEnum):
    """How far a file of a store is."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file, without its bytes. Times are Unix seconds."""

    file_id: str
    owner: str
    filename: str
    purpose: str
    size_bytes: int
    created_at: float


@dataclass(frozen=True)
class VectorStore:
    """A vector store with the number of its files per status."""

    store_id: str
    owner: str
    name: str
    description: str | None
    metadata: dict[str, str]
    created_at: float
    last_active_at: float
    expires_days: int | None
    space: str
    counts: dict[FileStatus, int] = field(default_factory=dict)
    usage_bytes: int = 0

    @property
    def expires_at(self) -> float | None:
        return None if self.expires_days is None else self.last_active_at + self.expires_days * DAY_S


@dataclass(frozen=True)
class StoreFile:
    """A file in a store."""

    store_id: str
    file_id: str
    filename: str
    status: FileStatus
    error_code: str | None
    error_message: str | None
    attributes: dict[str, Scalar]
    strategy: str  # JSON of a StaticChunking, as it was applied
    batch_id: str | None
    usage_bytes: int
    created_at: float


@dataclass(frozen=True)
class Chunk:
    """A piece of a document, found by its key."""

    key: int
    file_id: str
    position: int
    text: str
    filename: str
    attributes: dict[str, Scalar]

    @property
    def document_id(self) -> str:
        """What feedback calls it."""
        return f"{self.file_id}#{self.position}"


@dataclass(frozen=True)
class Page:
    """Which part of a list is wanted: at most `limit` after (or before) one of its ids, newest first by default."""

    limit: int = 20
    is_ascending: bool = False
    after: str | None = None
    before: str | None = None
