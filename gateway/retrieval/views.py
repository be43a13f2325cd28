"""Stores and files as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from base.json_text import from_json
from retrieval.stores.paging import Page
from retrieval.stores.store_records import FileStatus, StoredFile, StoreFile, VectorStore
from retrieval.stores.store_search import Found, SearchAnswer
from retrieval.stores.vector_stores import file_counts

T = TypeVar("T")
Json = dict[str, object]


def file_view(file: StoredFile) -> Json:
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


def search_view(answer: SearchAnswer, decisions: Sequence[Json], ignored: Sequence[str]) -> Json:
    """A page of results, with who searched and why."""
    return {
        "object": "vector_store.search_results.page",
        "search_query": list(answer.routed.texts),
        "data": [found_view(each) for each in answer.found],
        "has_more": False,
        "next_page": None,
        "decisions": list(decisions),
        "ignored": list(ignored),
    }


def found_view(found: Found) -> Json:
    chunk = found.chunk
    return {
        "file_id": chunk.file_id,
        "filename": chunk.filename,
        "score": round(found.score, 6),
        "attributes": chunk.attributes,
        "content": [{"type": "text", "text": chunk.text}],
        "document_id": chunk.document_id,
    }
