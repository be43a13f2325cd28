"""Two gateways on one Postgres with pgvector: they share files, stores and vectors, and each file is read once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.gateway.retrieval.serving import retrieval_config, serving
from tests.postgres import running_postgres

TEXTS = {f"note{number}.txt": f"note number {number} on subject s{number}" for number in range(12)}


@pytest.mark.slow
async def test_two_gateways_share_stores(tmp_path: Path) -> None:
    with running_postgres() as url:
        config = retrieval_config(pgvector_url_env="VECTORS_URL")
        where = {"config": config, "database_url": url, "secrets": {"VECTORS_URL": url}}
        async with serving(tmp_path / "a", **where) as first, serving(tmp_path / "b", **where) as second:
            _, store, _ = await first.post("/vector_stores", {"name": "shared"})
            items = [{"text": text, "filename": name, "attributes": {"n": len(name)}} for name, text in TEXTS.items()]
            path = f"/vector_stores/{store['id']}/texts"
            answers = await asyncio.gather(
                first.post(path, {"texts": items[:6]}), second.post(path, {"texts": items[6:]})
            )
            assert {each["status"] for _, body, _ in answers for each in body["data"]} == {"completed"}
            for running in (first, second):
                _, found, headers = await running.search(store["id"], "subject s7", model="base", max_num_results=50)
                assert found["data"][0]["filename"] == "note7.txt"
                assert sorted(each["filename"] for each in found["data"]) == sorted(TEXTS)
                assert headers["x-coe-expert"] == "base"
            condition = {"type": "eq", "key": "n", "value": len("note11.txt")}
            _, found, _ = await second.search(store["id"], "subject s7", filters=condition)
            assert {each["filename"] for each in found["data"]} == {"note10.txt", "note11.txt"}
            file_id = found["data"][0]["file_id"]
            made = [
                (await each.post(f"/vector_stores/{store['id']}/file_batches", {"file_ids": [file_id]}))[1]["id"]
                for each in (first, second)
            ]
            async with first.openai() as client:
                batches = [
                    await client.vector_stores.file_batches.retrieve(each, vector_store_id=store["id"]) for each in made
                ]
                assert [batch.file_counts.total for batch in batches] == [0, 1]
                await client.vector_stores.delete(store["id"])
            status, _, _ = await second.search(store["id"], "subject s7")
            assert status == 404
