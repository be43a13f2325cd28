"""Metadata and attributes as rows of the database hold them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from coe.decision_log.tables.files import StoreFileRow, StoreRow
from tests.gateway.retrieval.serving import Serving, serving


def overwrite(running: Serving, store_id: str, **values: str) -> None:
    table = StoreRow if "metadata_json" in values else StoreFileRow
    with running.store.transaction("overwrite") as connection:
        connection.execute(update(table).where(table.store_id == store_id).values(**values))


DAMAGED = ("null", '{"a": "b', '{"n": NaN}', '{"n": "\\ud800"}')


@pytest.mark.parametrize("metadata", DAMAGED)
async def test_a_store_with_damaged_metadata_does_not_hide_the_others(
    tmp_path: Path, metadata: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        stores = [await client.vector_stores.create(metadata={"team": "a"}) for _ in range(3)]
        bad = stores[1].id
        overwrite(running, bad, metadata_json=metadata)
        shown = {each.id: each.metadata async for each in client.vector_stores.list()}
        assert shown == {each.id: {} if each.id == bad else {"team": "a"} for each in stores}
        assert [bad in line for line in caplog.messages if "write them again" in line] == [True]
        await client.vector_stores.update(bad, metadata={"team": "b"})
        caplog.clear()
        assert (await client.vector_stores.retrieve(bad)).metadata == {"team": "b"}
        assert not any(bad in line for line in caplog.messages)


@pytest.mark.parametrize("attributes", DAMAGED)
async def test_a_file_with_damaged_attributes_is_still_found(tmp_path: Path, attributes: str) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        store_id = await running.store_of({"a.txt": "the animal purrs", "b.txt": "the animal barks"})
        overwrite(running, store_id, attributes_json=attributes)
        files = [each async for each in client.vector_stores.files.list(store_id)]
        assert [each.attributes for each in files] == [{}] * 2
        status, answer, _ = await running.search(store_id, "animal")
        assert status == 200, answer
        assert [each["attributes"] for each in answer["data"]] == [{}] * 2


async def test_attributes_too_large_for_64_bits_are_searched(running: Serving) -> None:
    store_id = await running.store_of({"a.txt": "the animal purrs"})
    overwrite(running, store_id, attributes_json='{"n": 1' + "0" * 30 + "}")
    status, answer, _ = await running.search(store_id, "animal", filters={"type": "gt", "key": "n", "value": 1})
    assert status == 200, answer
    assert [each["attributes"] for each in answer["data"]] == [{"n": 10**30}]
