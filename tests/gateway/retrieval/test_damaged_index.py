"""A damaged index on disk is made again from the files in the database."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.retrieval.serving import EXPERTS, Serving, retrieval_config, serving
from tests.waiting import until

TEXTS = {
    "cats.txt": "The cat is the animal that purrs when it is content.",
    "printer.txt": "Error code E1234: the printer has no paper left.",
}


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "description cut": lambda folder: cut(folder / "index.json"),
    "description empty": lambda folder: (folder / "index.json").write_bytes(b""),
    "journal cut": lambda folder: cut(folder / "journal-0.log"),
    "journal spoilt": lambda folder: spoil(folder / "journal-0.log"),
    "all gone": shutil.rmtree,
    "snapshot cut": lambda folder: cut(folder / "rows-1.bin"),
    "snapshot without description": lambda folder: (folder / "index.json").unlink(),
}


async def until_searched(running: Serving, store_id: str, name: str = "cats.txt", model: str = "base") -> None:
    """Returns once a search by that expert finds every text, that of this name first."""

    async def found() -> str | None:
        status, answer, headers = await running.search(store_id, TEXTS[name], model=model)
        assert status in (200, 503), answer
        is_whole = status == 200 and len(answer["data"]) == len(TEXTS)
        return (answer["data"][0]["filename"], headers["x-coe-expert"]) if is_whole else None

    assert await until(found) == (name, model)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.stores.ingestion.LOOK_EVERY_S", 0.02)


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_index_is_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path) as running:
        store_id = await running.store_of(TEXTS)
        if damage.startswith("snapshot"):
            vectors: Any = running.service.stores._vectors
            vectors.index(store_id, vectors.base_space).snapshot()
    DAMAGE[damage](tmp_path / "retrieval/index/base" / store_id)
    for is_repaired in (False, True):
        caplog.clear()
        async with serving(tmp_path) as running:
            await until_searched(running, store_id)
        warned = [line for line in caplog.messages if f"{store_id} is damaged" in line]
        assert bool(warned) is not is_repaired, caplog.messages


async def test_who_searches_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.stores.ingestion.LOOK_EVERY_S", 600.0)
    config = retrieval_config(experts={"words": EXPERTS["words"]})
    async with serving(tmp_path, config=config) as running:
        store_id = await running.store_of(TEXTS)
    (tmp_path / "retrieval/index/base" / store_id / "index.json").write_bytes(b"{")
    async with serving(tmp_path, config=config) as running:
        status, answer, headers = await running.search(store_id, "cat", model="base")
        assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "index_incomplete", "15")
        assert answer["error"]["message"] == (
            f"index {store_id} is damaged (index.json is not the description of an index): its files are read again, "
            "as the status of the store shows"
        )
        assert (await running.search(store_id, "cat", model="words"))[0] == 200


async def test_a_cut_snapshot_of_an_expert_of_its_own_is_made_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        store_id = await running.store_of(TEXTS)
        vectors: Any = running.service.stores._vectors
        space = next(space for space in vectors._indexes if space != vectors.base_space)
        vectors.index(store_id, space).snapshot()
    (rows,) = (tmp_path / "retrieval/index" / space[:16] / store_id).glob("rows-*")
    cut(rows)
    async with serving(tmp_path) as running:
        await until_searched(running, store_id, "printer.txt", "other")


async def test_files_can_be_taken_out_of_a_store_whose_index_is_damaged(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        store_id = await running.store_of(TEXTS)
    (tmp_path / "retrieval/index/base" / store_id / "index.json").write_bytes(b"{")
    async with serving(tmp_path) as running, running.openai() as client:
        files = {each.id async for each in client.vector_stores.files.list(store_id)}
        for file_id in files:
            assert (await client.vector_stores.files.delete(file_id, vector_store_id=store_id)).deleted
        status, answer, _ = await running.post(f"/vector_stores/{store_id}/texts", {"texts": [{"text": "a new one"}]})
        assert (status, answer["data"][0]["status"]) == (200, "completed")


async def test_an_index_of_another_encoder_is_left_alone(tmp_path: Path) -> None:
    """Whoever brings the encoder back finds files that were read by it, not by the one in between."""
    async with serving(tmp_path) as running:
        store_id = await running.store_of(TEXTS)
    (tmp_path / "retrieval/index/base" / store_id / "index.json").write_bytes(b"{")
    async with serving(tmp_path, config=retrieval_config(dim=128)) as running:
        status, answer, _ = await running.search(store_id, "cat", model="base")
        assert (status, answer["error"]["code"]) == (409, "other_vector_space")
    async with serving(tmp_path) as running:
        await until_searched(running, store_id)
