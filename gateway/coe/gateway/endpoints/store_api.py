"""Vector stores and files over HTTP: bodies, which refuse unknown keys, and answers in the form of OpenAI's API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from coe.base.json_text import Body, ColumnText, from_json
from coe.decision_log.tables.files import FileRow
from coe.retrieval.stores.chunking import ChunkingStrategy
from coe.retrieval.stores.filters import Scalar
from coe.retrieval.stores.paging import Page
from coe.retrieval.stores.store_records import FileStatus, StoreFile, VectorStore

MAX_INPUT_CHARS = 100_000
MAX_PAIRS = 16
MAX_ATTACHED = 500

T = TypeVar("T")
Json = dict[str, object]


def few_pairs(pairs: object) -> object:
    """Counts before each value is looked at: a bad value is a fault for every type it might have had."""
    if isinstance(pairs, dict) and len(pairs) > MAX_PAIRS:
        raise ValueError(f"has {len(pairs)} pairs; allowed: at most {MAX_PAIRS}")
    return pairs


def check_pairs(pairs: dict[str, Scalar]) -> dict[str, Scalar]:
    """OpenAI's bounds on keys and values of metadata and attributes."""
    for key, value in pairs.items():
        if not 0 < len(key) <= 64:
            raise ValueError(f"key '{key[:70]}' has {len(key)} characters; allowed: 1 to 64")
        if isinstance(value, str) and len(value) > 512:
            raise ValueError(f"value of '{key}' has {len(value)} characters; allowed: at most 512")
    return pairs


Attributes = Annotated[dict[str, Scalar], BeforeValidator(few_pairs), AfterValidator(check_pairs)]
Metadata = Annotated[dict[str, str], BeforeValidator(few_pairs), AfterValidator(check_pairs)]
Text = Annotated[str, Field(max_length=MAX_INPUT_CHARS)]
FileIds = Annotated[list[ColumnText], Field(max_length=MAX_ATTACHED, fail_fast=True)]


class ExpiresAfter(Body):
    """Days after the last use."""

    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class StoreCreate(Body):
    """POST /v1/vector_stores."""

    name: ColumnText = Field(default="", max_length=256)
    description: ColumnText | None = Field(default=None, max_length=2048)
    file_ids: FileIds = Field(default_factory=list)
    chunking_strategy: ChunkingStrategy | None = Field(default=None, discriminator="type")
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class StoreUpdate(Body):
    """POST /v1/vector_stores/{id}. What is not given stays; null removes the expiry."""

    name: ColumnText | None = Field(default=None, max_length=256)
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class FileAttach(Body):
    """POST /v1/vector_stores/{id}/files."""

    file_id: ColumnText
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = Field(default=None, discriminator="type")


class AttributesUpdate(Body):
    """POST /v1/vector_stores/{id}/files/{file_id}."""

    attributes: Attributes | None


class BatchCreate(Body):
    """POST /v1/vector_stores/{id}/file_batches: `file_ids`, or `files` with attributes of their own."""

    file_ids: FileIds = Field(default_factory=list)
    files: list[FileAttach] = Field(default_factory=list, max_length=MAX_ATTACHED, fail_fast=True)
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = Field(default=None, discriminator="type")

    @model_validator(mode="after")
    def one_of_both(self) -> BatchCreate:
        if bool(self.file_ids) == bool(self.files):
            raise ValueError("give either file_ids or files")
        return self


class TextItem(Body):
    """A text that becomes a file."""

    text: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    filename: str = Field(default="text.txt", min_length=1, max_length=255)
    attributes: Attributes | None = None


class TextsAdd(Body):
    """POST /v1/vector_stores/{id}/texts, an addition: texts without an upload; answers when they can be found."""

    texts: list[TextItem] = Field(min_length=1, max_length=MAX_ATTACHED, fail_fast=True)
    chunking_strategy: ChunkingStrategy | None = Field(default=None, discriminator="type")


def file_view(file: FileRow) -> Json:
    return {
        "id": file.file_id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


def store_view(store: VectorStore) -> Json:
    expires_at = store.expires_at
    expiry = None if store.expires_days is None else {"anchor": "last_active_at", "days": store.expires_days}
    return {
        "id": store.store_id,
        "object": "vector_store",
        "created_at": int(store.created_at),
        "name": store.name,
        "description": store.description,
        "usage_bytes": store.usage_bytes,
        "file_counts": file_counts(store.counts),
        "status": "in_progress" if store.counts.get(FileStatus.IN_PROGRESS) else "completed",
        "expires_after": expiry,
        "expires_at": None if expires_at is None else int(expires_at),
        "last_active_at": int(store.last_active_at),
        "metadata": store.metadata,
    }


def store_file_view(file: StoreFile) -> Json:
    error = None if file.error_code is None else {"code": file.error_code, "message": file.error_message}
    return {
        "id": file.file_id,
        "object": "vector_store.file",
        "created_at": int(file.created_at),
        "vector_store_id": file.store_id,
        "filename": file.filename,
        "status": file.status.value,
        "last_error": error,
        "usage_bytes": file.usage_bytes,
        "attributes": file.attributes,
        "chunking_strategy": {"type": "static", "static": from_json(file.strategy)},
    }


def batch_view(store_id: str, batch_id: str, counts: dict[FileStatus, int], created_at: float) -> Json:
    if counts.get(FileStatus.IN_PROGRESS):
        status = FileStatus.IN_PROGRESS
    else:
        status = FileStatus.CANCELLED if set(counts) == {FileStatus.CANCELLED} else FileStatus.COMPLETED
    return {
        "id": batch_id,
        "object": "vector_store.files_batch",
        "created_at": int(created_at),
        "vector_store_id": store_id,
        "status": status.value,
        "file_counts": file_counts(counts),
    }


def list_view(items: Sequence[T], page: Page, view: Callable[[T], Json]) -> Json:
    """A page of a list; one item too many says that more follow."""
    shown = [view(item) for item in items[: page.limit]]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > page.limit,
    }


def file_counts(counts: Mapping[FileStatus, int]) -> dict[str, int]:
    """OpenAI's `file_counts`."""
    return {**{status.value: counts.get(status, 0) for status in FileStatus}, "total": sum(counts.values())}
