"""Files, stores and chunks as the catalog returns them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coe.base.json_text import JsonError, from_json
from coe.retrieval.stores.chunking import StaticChunking
from coe.retrieval.stores.filters import Scalar

DAY_S = 86_400.0

logger = logging.getLogger(__name__)


class FileStatus(StrEnum):
    """The progress of a file in a store."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


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
    version: int = 0
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
class Addition:
    """A file to add to a store. `chunking` None leaves the choice to the gateway."""

    file_id: str
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    chunking: StaticChunking | None = None


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
        """The id that feedback uses for it."""
        return f"{self.file_id}#{self.position}"


def pairs_of(text: str, whose: str) -> dict[str, Any]:
    """Parse metadata or attributes of a row; a damaged row yields none, with a warning, so that it hides no others."""
    with contextlib.suppress(JsonError):
        pairs = from_json(text)
        if isinstance(pairs, dict):
            return pairs
    logger.warning("retrieval: metadata or attributes of %s are damaged and not shown: write them again", whose)
    return {}
