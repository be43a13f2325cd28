"""A store holds so many files and no more, however they come."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest

from coe.base.errors import RequestError
from coe.retrieval.stores.store_records import Addition
from tests.gateway.retrieval.serving import Serving, serving
from tests.postgres import running_postgres

LIMIT = 3


@pytest.fixture(autouse=True)
def _holds_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.retrieval.stores.catalog.MAX_STORE_FILES", LIMIT)


async def files_of(client: openai.AsyncOpenAI, count: int) -> list[str]:
    made = [await client.files.create(file=(f"{n}.txt", b"a text"), purpose="user_data") for n in range(count)]
    return [file.id for file in made]


async def total(client: openai.AsyncOpenAI, store_id: str) -> int:
    return (await client.vector_stores.retrieve(store_id)).file_counts.total


async def test_a_batch_is_attached_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        store = await client.vector_stores.create()
        ids = await files_of(client, LIMIT + 1)
        path = f"/vector_stores/{store.id}/file_batches"
        for body in ({"file_ids": ids}, {"files": [{"file_id": each, "attributes": {"n": 1}} for each in ids]}):
            status, answer, _ = await running.post(path, body)
            assert (status, answer["error"]["code"]) == (400, "too_many_files"), answer
            assert f"{store.id} would hold 4 files; allowed: 3 in all" in answer["error"]["message"]
            assert await total(client, store.id) == 0
        mixed = [{"file_id": ids[1]}, {"file_id": ids[0]}, {"file_id": ids[0], "attributes": {"n": 1}}]
        _, batch, _ = await running.post(path, {"files": mixed, "attributes": {"m": 2}})
        assert batch["file_counts"]["total"] == 2
        listed = {each.id: each.attributes async for each in client.vector_stores.files.list(store.id)}
        assert listed == {ids[0]: {"n": 1}, ids[1]: {"m": 2}}


async def attached_at_once(running: Serving) -> int:
    """Files in a store after many requests at once, each for one file more."""
    async with running.openai() as client:
        store = await client.vector_stores.create()
        ids = await files_of(client, 3 * LIMIT)
        path = f"/vector_stores/{store.id}/files"
        answers = await asyncio.gather(*(running.post(path, {"file_id": each}) for each in ids))
        statuses = [status for status, _, _ in answers]
        assert sorted(statuses) == [200] * LIMIT + [400] * 2 * LIMIT, answers
        return await total(client, store.id)


async def test_requests_at_once_do_not_slip_past(running: Serving) -> None:
    assert await attached_at_once(running) == LIMIT


@pytest.mark.slow
async def test_requests_at_once_do_not_slip_past_on_postgres(tmp_path: Path) -> None:
    with running_postgres() as url:
        async with serving(tmp_path, database_url=url) as running:
            assert await attached_at_once(running) == LIMIT


async def test_files_of_a_full_store_can_be_attached_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        ids = await files_of(client, LIMIT)
        store = await client.vector_stores.create(file_ids=ids)
        batch = await client.vector_stores.file_batches.create(store.id, file_ids=ids)
        assert batch.file_counts.total == LIMIT
        assert (await client.vector_stores.files.create(store.id, file_id=ids[0])).id == ids[0]


async def test_texts_that_do_not_fit_leave_no_files(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        store = await client.vector_stores.create()
        texts = [{"text": f"text {n}"} for n in range(LIMIT + 1)]
        status, answer, _ = await running.post(f"/vector_stores/{store.id}/texts", {"texts": texts})
        assert (status, answer["error"]["code"]) == (400, "too_many_files")
        assert await total(client, store.id) == 0
        assert [each async for each in client.files.list()] == []


async def test_nothing_is_attached_to_a_store_that_is_deleted_meanwhile(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        (file_id,) = await files_of(client, 1)
        stores = running.service.stores
        gone = await stores.create("", name="", description=None, metadata={}, expires_days=None)
        await stores.delete("", gone.store_id)
        with pytest.raises(RequestError, match="there is no vector store"):
            await stores.attach("", gone.store_id, [Addition(file_id)])
        assert stores.catalog.stores_of(file_id) == []
