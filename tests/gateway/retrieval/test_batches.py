"""Batches of files outlive the files that were in them."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from tests.gateway.retrieval.serving import Serving, serving

NONE = {"in_progress": 0, "completed": 0, "cancelled": 0, "failed": 0, "total": 0}


async def batch_of(running: Serving, store_id: str, *names: str) -> tuple[str, list[str]]:
    """A batch whose files are read: its id, and theirs."""
    async with running.openai() as client:
        files = [await client.files.create(file=(name, b"a text"), purpose="user_data") for name in names]
        ids = [file.id for file in files]
        batch = await client.vector_stores.file_batches.create_and_poll(store_id, file_ids=ids, poll_interval_ms=20)
    return batch.id, ids


async def test_a_batch_stays_when_its_files_are_attached_again_or_taken_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        batches = client.vector_stores.file_batches
        store = await client.vector_stores.create()
        first, (a, b) = await batch_of(running, store.id, "a.txt", "b.txt")
        made = await batches.retrieve(first, vector_store_id=store.id)
        assert (made.status, made.file_counts.completed) == ("completed", 2)
        second = await batches.create_and_poll(store.id, file_ids=[a], poll_interval_ms=20)
        assert (await batches.retrieve(first, vector_store_id=store.id)).file_counts.total == 1
        await client.vector_stores.files.delete(b, vector_store_id=store.id)
        left = await batches.retrieve(first, vector_store_id=store.id)
        assert left.model_dump() == made.model_dump() | {"file_counts": NONE}
        assert [each async for each in batches.list_files(first, vector_store_id=store.id)] == []
        assert (await batches.cancel(first, vector_store_id=store.id)).id == first
        assert (await batches.retrieve(second.id, vector_store_id=store.id)).file_counts.total == 1


async def test_a_batch_belongs_to_its_store_and_ends_with_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        store, other = await client.vector_stores.create(), await client.vector_stores.create()
        batch_id, _ = await batch_of(running, store.id, "a.txt")
        with pytest.raises(openai.NotFoundError, match="no batch in"):
            await client.vector_stores.file_batches.retrieve(batch_id, vector_store_id=other.id)
        catalog = running.service.stores.catalog
        assert catalog.batch(store.id, batch_id) is not None
        await client.vector_stores.delete(store.id)
        assert catalog.batch(store.id, batch_id) is None
