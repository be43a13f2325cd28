"""Rows of earlier versions hold what is refused today, and hide nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.stores.tables import STORE_FILES, STORES
from tests.gateway.retrieval.serving import Serving, serving

BAD_METADATA = ('{"team": "a", "half": "\\ud800"}', '{"team": "a", "\\udc00": "x"}')
BAD_ATTRIBUTES = ('{"n": 1, "x": NaN}', '{"n": 1, "x": -Infinity}', '{"n": 1, "x": "\\ud800"}')


def poison(running: Serving, store_id: str, **values: str) -> None:
    table = STORES if "metadata_json" in values else STORE_FILES
    with running.store.transaction("poison") as connection:
        connection.execute(table.update().where(table.c.store_id == store_id).values(**values))


@pytest.mark.parametrize(
    ("metadata", "kept"), [*((each, {"team": "a"}) for each in BAD_METADATA), ("null", {}), ('{"a": "b', {})]
)
async def test_a_store_with_bad_metadata_does_not_hide_the_others(
    tmp_path: Path, metadata: str, kept: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        stores = [await client.vector_stores.create(metadata={"team": "a"}) for _ in range(3)]
        bad = stores[1].id
        poison(running, bad, metadata_json=metadata)
        shown = {each.id: each.metadata async for each in client.vector_stores.list()}
        assert shown == {each.id: kept if each.id == bad else {"team": "a"} for each in stores}
        assert [bad in line for line in caplog.messages if "write them again" in line] == [True]
        await client.vector_stores.update(bad, metadata={"team": "b"})
        caplog.clear()
        assert (await client.vector_stores.retrieve(bad)).metadata == {"team": "b"}
        assert not any(bad in line for line in caplog.messages)


@pytest.mark.parametrize("attributes", BAD_ATTRIBUTES)
async def test_a_file_with_bad_attributes_does_not_hide_the_others(tmp_path: Path, attributes: str) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        store_id = await running.store_of({"a.txt": "the animal purrs", "b.txt": "the animal barks"})
        poison(running, store_id, attributes_json=attributes)
        files = [each async for each in client.vector_stores.files.list(store_id)]
        assert [each.attributes for each in files] == [{"n": 1}] * 2
        status, answer, _ = await running.search(store_id, "animal", filters={"type": "eq", "key": "n", "value": 1})
        assert status == 200, answer
        assert [each["attributes"] for each in answer["data"]] == [{"n": 1}] * 2


async def test_attributes_too_large_for_64_bits_are_searched(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        store_id = await running.store_of({"a.txt": "the animal purrs"})
        poison(running, store_id, attributes_json='{"n": 1' + "0" * 30 + "}")
        status, answer, _ = await running.search(store_id, "animal", filters={"type": "gt", "key": "n", "value": 1})
        assert status == 200, answer
        assert [each["attributes"] for each in answer["data"]] == [{"n": 10**30}]
