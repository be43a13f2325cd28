"""From searches and clicks to a pilot library that a running gateway takes over, as people run it."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from coe.decision_log.decision_record import RETRIEVAL
from coe.retrieval.routing.pilot_library import MANIFEST_FILE, load_library
from tests.gateway.served import end_gateway, environment_of, start_gateway
from tests.retrieval.training.collection_files import SUBJECTS
from tests.training.trained_folder import make_trained
from tests.waiting import until

ASKS = [f"number {i}: what of the {SUBJECTS[i % 8]}" for i in range(80)]
MORE_ASKS = [f"asked later, {i}: {SUBJECTS[i % 8]}" for i in range(10)]
SECTION = {
    "encoder": {"kind": "hashing"},
    "experts": {"words": {"kind": "bm25"}},
    "pilots": "pilots",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """experts.yaml with retrieval and no pilot library yet, and a data folder with a live router."""
    make_trained(tmp_path)
    values = yaml.safe_load((tmp_path / "experts.yaml").read_text())
    values |= {"retrieval": SECTION, "log": {"privacy": "text"}}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


@dataclass
class Client:
    """Requests of a user of the gateway. Every answer is to be a good one."""

    http: aiohttp.ClientSession
    url: str
    data: Path

    async def post(self, path: str, body: object) -> tuple[Any, Any]:
        async with self.http.post(f"{self.url}{path}", json=body) as response:
            answer = await response.json()
            assert response.status in (200, 202), answer
            return answer, response.headers

    async def make_store(self) -> str:
        store, _ = await self.post("/vector_stores", {"name": "subjects"})
        texts = [{"filename": f"{each}.txt", "text": f"All about the {each}."} for each in SUBJECTS]
        await self.post(f"/vector_stores/{store['id']}/texts", {"texts": texts})
        return str(store["id"])

    async def search(self, store_id: str, ask: str) -> tuple[Any, str, str]:
        """Documents found, the decision's id, and the version of the library that made it."""
        answer, headers = await self.post(f"/vector_stores/{store_id}/search", {"query": ask})
        return answer["data"], headers["x-coe-decision-id"], headers["x-coe-router-version"]

    async def click(self, store_id: str, asks: list[str]) -> None:
        """Searches, each with its subject's document opened, until they are all in the database."""
        before = self.logged()
        for ask in asks:
            found, decision_id, _ = await self.search(store_id, ask)
            opened = next(each for each in found if each["filename"].removesuffix(".txt") in ask)
            body = {"decision_id": decision_id, "document_id": opened["document_id"], "kind": "thumb", "value": 1}
            await self.post("/feedback", body)
        await until(lambda: self.logged() >= before + len(asks))

    def logged(self) -> int:
        with sqlite3.connect(self.data / "coe.db") as database:
            count = database.execute("SELECT count(*) FROM decisions WHERE category = ?", (RETRIEVAL,))
            return int(count.fetchone()[0])


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Client]:
    process, url = await asyncio.to_thread(start_gateway, folder / "experts.yaml", folder / "data")
    try:
        async with aiohttp.ClientSession() as http:
            yield Client(http, url, folder / "data")
    finally:
        await asyncio.to_thread(end_gateway, process, signal.SIGTERM)


async def coe(folder: Path, *words: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a command on the folder."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coe", *words),
        env=environment_of(folder / "experts.yaml", folder / "data"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def test_clicks_become_pilots_of_the_running_gateway(folder: Path) -> None:
    async with gateway(folder) as client:
        store_id = await client.make_store()
        await client.click(store_id, ASKS[:3])
        status, output, _ = await coe(folder, "retrain")
        assert status == 0
        assert "decline: changes nothing" in output
        assert "pilots: need about 50 more searches with feedback" in output
        await client.click(store_id, ASKS[3:])
        assert (await client.search(store_id, ASKS[0]))[2] == "none"

        first = await retrained_while_searching(folder, client, store_id)
        assert (first["old"], first["learned_from"] + first["held_out"]) == (None, len(ASKS))
        await client.click(store_id, MORE_ASKS)
        second = await retrained_while_searching(folder, client, store_id)
        assert (second["old"], second["learned_from"] + second["held_out"]) == (first["new"], 90)
        _, decision_id, version = await client.search(store_id, "what of the violin")
        async with client.http.get(f"{client.url}/decisions/{decision_id}") as response:
            assert (await response.json())["record"]["decision"]["router_version"] == version == second["new"]


async def retrained_while_searching(folder: Path, client: Client, store_id: str) -> Any:
    """Output of `coe retrain` on retrieval. Searches go on until one is of the new library; none is of a third one."""
    seen: list[str] = []
    is_done = asyncio.Event()

    async def keep_searching() -> None:
        while not is_done.is_set():
            _, _, version = await client.search(store_id, ASKS[len(seen) % len(ASKS)])
            seen.append(version)
            await asyncio.sleep(0.02)  # leaves the processor to the retraining

    searching = asyncio.create_task(keep_searching())
    status, output, errors = await coe(folder, "retrain", "--json")
    assert status == 0, errors
    result = json.loads(output)["retrieval"]
    assert result["is_promoted"], result
    assert result["new"] == load_library(folder / "pilots").manifest.version
    assert result["ndcg_at_10"]["after"] >= result["ndcg_at_10"]["before"]
    await until(lambda: seen[-1] == result["new"])
    is_done.set()
    await searching
    assert list(dict.fromkeys(seen)) == [result["old"] or "none", result["new"]]
    assert seen == sorted(seen, key=[result["old"] or "none", result["new"]].index), "never back to the old one"
    return result


@pytest.mark.slow
async def test_a_part_that_fails_says_so_and_keeps_the_other_from_nothing(folder: Path) -> None:
    async with gateway(folder) as client:
        store_id = await client.make_store()
        await client.click(store_id, ASKS)
    (folder / "data" / "routers" / "live.json").rename(folder / "data" / "kept.json")
    status, output, errors = await coe(folder, "retrain", "--json")
    assert status == 1
    assert "there is no live router to improve on" in errors
    result = json.loads(output)
    assert "there is no live router to improve on" in result["error"]
    assert result["retrieval"]["is_promoted"]

    (folder / "data" / "kept.json").rename(folder / "data" / "routers" / "live.json")
    (folder / "pilots" / MANIFEST_FILE).write_text("{")
    status, output, errors = await coe(folder, "retrain")
    assert status == 1
    assert "the pilot library stays as it is: " in errors
    assert "is not the manifest of a pilot library" in errors
    assert "decline: changes nothing" in output
    assert (folder / "pilots" / MANIFEST_FILE).read_text() == "{"

    (folder / "data" / "routers" / "live.json").unlink()
    status, output, errors = await coe(folder, "retrain")
    assert (status, output) == (1, "")
    assert "there is no live router" in errors
    assert "the pilot library stays" in errors
