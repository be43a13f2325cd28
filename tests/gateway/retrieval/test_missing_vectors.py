"""Vectors that a store lacks are made again from its chunks."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from coe.retrieval.stores.document_vectors import DocumentVectors
from tests.gateway.retrieval.serving import EXPERTS, Serving, retrieval_config, serving
from tests.waiting import until

TEXTS = {
    "cats.txt": "The cat is the animal that purrs when it is content.",
    "printer.txt": "Error code E1234: the printer has no paper left.",
}


def lose(folder: Path, statement: str = "DELETE FROM retrieval_indexes") -> None:
    engine = create_engine(f"sqlite:///{folder / 'coe.db'}")
    with engine.begin() as connection:
        for each in ("DELETE FROM retrieval_vectors", statement):
            connection.execute(text(each))
    engine.dispose()


async def until_searched(running: Serving, store_id: str, name: str = "cats.txt", model: str = "base") -> None:
    """Returns once a search by that expert finds every text, that of this name first."""

    async def found() -> tuple[str, str] | None:
        status, answer, headers = await running.search(store_id, TEXTS[name], model=model)
        assert status in (200, 503), answer
        is_whole = status == 200 and len(answer["data"]) == len(TEXTS)
        return (answer["data"][0]["filename"], headers["x-coe-expert"]) if is_whole else None

    assert await until(found) == (name, model)


@pytest.mark.parametrize("statement", ["DELETE FROM retrieval_indexes", "UPDATE retrieval_indexes SET vectors = 0"])
@pytest.mark.parametrize(("name", "model"), [("cats.txt", "base"), ("printer.txt", "other")])
async def test_they_are_made_again(
    tmp_path: Path, statement: str, name: str, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as running:
        store_id = await running.store_of(TEXTS)
    lose(tmp_path, statement)
    for is_repaired in (False, True):
        caplog.clear()
        async with serving(tmp_path) as running:
            await until_searched(running, store_id, name, model)
        warned = [line for line in caplog.messages if f"the documents of {store_id} are encoded again" in line]
        assert bool(warned) is not is_repaired, caplog.messages


async def test_who_searches_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = retrieval_config(experts={"words": EXPERTS["words"]})
    async with serving(tmp_path, config=config) as running:
        store_id = await running.store_of(TEXTS)
    lose(tmp_path)
    monkeypatch.setattr(DocumentVectors, "behind", lambda self, store_id: [])  # as before it is looked
    async with serving(tmp_path, config=config) as running:
        for model in ("base", "auto"):
            status, answer, headers = await running.search(store_id, "cat", model=model)
            assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "index_incomplete", "5")
            assert (
                answer["error"]["message"] == f"retrieval expert 'base' is still encoding the documents of {store_id}"
            )
        assert (await running.search(store_id, "cat", model="words"))[0] == 200
        async with running.openai() as client:
            for each in [each.id async for each in client.vector_stores.files.list(store_id)]:
                assert (await client.vector_stores.files.delete(each, vector_store_id=store_id)).deleted
        status, answer, _ = await running.post(f"/vector_stores/{store_id}/texts", {"texts": [{"text": "a new one"}]})
        assert (status, answer["data"][0]["status"]) == (200, "completed")
        assert (await running.search(store_id, "cat", model="base"))[0] == 200


async def test_a_store_of_another_encoder_is_left_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        store_id = await running.store_of(TEXTS)
    lose(tmp_path)
    async with serving(tmp_path, config=retrieval_config(dim=128)) as running:
        status, answer, _ = await running.search(store_id, "cat", model="base")
        assert (status, answer["error"]["code"]) == (409, "other_vector_space")
    async with serving(tmp_path) as running:
        await until_searched(running, store_id)
