"""Three gateways on one data folder, one Redis and one Postgres behave as one: routers, canaries, conversations,
receipts, feedback, vector stores, a retrain by one of them, a rolling restart, a kill under load, and a log that has
every answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from benchmarks.chaos_fleet import EXPERT, START_TIMEOUT_S, GatewayProcess, serving
from coe.decision_log.database import Database
from coe.decision_log.doctor_commands import drain_all, examine
from coe.decision_log.privacy import load_key, session_hash
from coe.fleet.router_registry import Registry
from coe.router.config.log import LogConfig
from coe.router.live_pointer import Trial
from coe.router.model_files.artifact import load_artifact, save_artifact
from tests.training.trained_folder import NOW, make_trained
from tests.waiting import until

COUNT, ASKERS = 3, 6
SECTIONS = """\
log: {durability: sync}
gateway: {drain_s: 300}
retrieval: {encoder: {kind: hashing}, experts: {}, pgvector_url_env: DATABASE_URL}
policies: {default: {exploration: 10%}}
"""
RATED = 150


@dataclass
class Fleet:
    """The gateways, a client, and the decision ids of all answers so far."""

    folder: Path
    redis_url: str
    postgres_url: str
    gateways: list[GatewayProcess]
    client: aiohttp.ClientSession
    answered: list[str]

    async def ask(self, gateway: GatewayProcess, session: str, *texts: str) -> aiohttp.ClientResponse:
        """A routed answer of one gateway in a conversation with these turns, the user's first."""
        said = texts or ("what is the tallest mountain?",)
        turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
        body = {"model": "auto", "messages": turns}
        url, headers = f"{gateway.url}/v1/chat/completions", {"x-session-id": session}
        async with self.client.post(url, json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
        self.answered.append(answer.headers["x-coe-decision-id"])
        return answer

    async def post(self, gateway: GatewayProcess, path: str, body: object) -> Any:
        async with self.client.post(f"{gateway.url}/v1/{path}", json=body) as answer:
            assert answer.ok, await answer.text()
            return await answer.json()

    async def versions(self, session: str) -> set[str]:
        """Versions of the router that answer one conversation, over all gateways."""
        answers = [await self.ask(gateway, session) for gateway in self.gateways]
        return {answer.headers["x-coe-router-version"] for answer in answers}

    async def serves(self, version: str) -> bool:
        """Returns whether that router alone answers, over all gateways."""
        return await self.versions("s") == {version}

    async def is_ready(self, gateway: GatewayProcess) -> bool:
        try:
            async with self.client.get(f"{gateway.url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


@pytest.fixture
async def fleet(tmp_path: Path, redis_url: str, postgres_url: str) -> AsyncIterator[Fleet]:
    make_trained(tmp_path, experts=(EXPERT, "right"))
    config = tmp_path / "experts.yaml"
    config.write_text(config.read_text() + SECTIONS)
    shared = {"REDIS_URL": redis_url, "DATABASE_URL": postgres_url}
    gateways = [
        GatewayProcess(config, tmp_path / "data", shared, tmp_path / f"gateway{number}.log") for number in range(COUNT)
    ]
    async with AsyncExitStack() as stack:
        for gateway in gateways:
            await stack.enter_async_context(serving(gateway))
        timeout = aiohttp.ClientTimeout(total=START_TIMEOUT_S)
        client = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        yield Fleet(tmp_path, redis_url, postgres_url, gateways, client, [])


class Balancer:
    """Askers behind a round robin over the gateways that say they are ready, as a load balancer's probe sees them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.ready = list(fleet.gateways)
        self.failed = 0
        self.asked = 0
        self._asking = Counter[str]()  # requests on their way, by gateway
        self._is_over = False
        self._tasks = [asyncio.create_task(self._probe()), *(asyncio.create_task(self._ask(i)) for i in range(ASKERS))]

    async def _probe(self) -> None:
        while not self._is_over:
            self.ready = [each for each in self._fleet.gateways if await self._fleet.is_ready(each)]
            await asyncio.sleep(0.05)

    async def _ask(self, number: int) -> None:
        while not self._is_over:
            self.asked += 1
            gateway = self.ready[self.asked % len(self.ready)]
            self._asking[gateway.url] += 1
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=START_TIMEOUT_S)) as client:
                said = await gateway.ask(client, "polly", is_stream=self.asked % 2 == 0, request_id=f"{number}")
            self._asking[gateway.url] -= 1
            if said is None:
                self.failed += 1
            else:
                self._fleet.answered.append(said)

    async def more(self, count: int) -> None:
        wanted = len(self._fleet.answered) + count
        await until(lambda: len(self._fleet.answered) >= wanted, f"{count} more answers")

    async def take_out(self, gateway: GatewayProcess) -> None:
        """Ends a gateway in order, once nobody asks it any more."""
        gateway.send(signal.SIGTERM)
        await until(lambda: gateway not in self.ready and not self._asking[gateway.url])
        assert await gateway.stop() == 0  # a second signal ends the drain

    async def end(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)


@pytest.mark.slow
async def test_three_gateways_are_one(fleet: Fleet) -> None:
    await same_routers_and_canaries(fleet)
    await receipts_and_feedback_from_any(fleet)
    await conversations_go_on_at_any(fleet)
    await vector_stores_of_all(fleet)
    await one_retrains_for_all(fleet)
    await rolling_restart_without_a_failed_request(fleet)
    await kill_under_load(fleet)
    assert await asyncio.gather(*(gateway.stop(signal.SIGINT) for gateway in fleet.gateways)) == [0] * COUNT
    store = Database(fleet.postgres_url)
    data = fleet.folder / "data"
    await drain_all(data, LogConfig(), fleet.redis_url, store)
    found = await examine(data, LogConfig(), fleet.redis_url, store)
    missing = [each for each in fleet.answered if store.get_decision(each) is None]
    store.close()
    assert missing == []
    assert found.is_healthy, found
    assert found.decisions == found.rows >= len(fleet.answered) > 100


async def same_routers_and_canaries(fleet: Fleet) -> None:
    registry = Registry(fleet.folder / "data" / "routers")
    first = load_artifact(registry.folders()[0])
    fields = first.manifest.model_dump(mode="json", exclude={"version", "weights_sha256"})
    old = first.manifest.version
    new = save_artifact(registry.root, fields | {"data_fingerprints": {"copy": "1"}}, first.arrays).manifest.version
    assert await fleet.versions("s") == {old}
    trial = Trial(version=new, share=0.3, started_at=1000.0)
    registry.try_out(trial)
    key = load_key(fleet.folder / "data")
    expected = {f"s{n}": new if trial.takes(session_hash(f"named:s{n}", key)) else old for n in range(30)}
    assert set(expected.values()) == {old, new}

    async def is_divided() -> bool:
        return all([await fleet.versions(session) == {version} for session, version in expected.items()])

    await until(is_divided, "every gateway gives each conversation its router")
    registry.promote(new, NOW)
    await until(partial(fleet.serves, new), "the new one answers")


async def receipts_and_feedback_from_any(fleet: Fleet) -> None:
    asked, other, third = fleet.gateways
    said = (await fleet.ask(asked, "receipt")).headers["x-coe-decision-id"]
    async with fleet.client.get(f"{other.url}/v1/decisions/{said}") as answer:
        assert answer.status == 200
    said = (await fleet.ask(asked, "receipt")).headers["x-coe-decision-id"]
    await fleet.post(other, "feedback", {"decision_id": said, "kind": "thumb", "value": 1})
    async with fleet.client.get(f"{third.url}/v1/decisions/{said}") as answer:
        assert [each["value"] for each in (await answer.json())["feedback"]] == [1]


async def conversations_go_on_at_any(fleet: Fleet) -> None:
    """The header is there where a gateway knows who answered before: it asks Redis, for a moment only."""
    turns, numbers = ("what is the tallest mountain?", "Everest", "and the second one?"), count()

    async def goes_on(gateway: GatewayProcess) -> bool:
        session = f"talk-{next(numbers)}"
        await fleet.ask(fleet.gateways[0], session, turns[0])
        return "x-coe-conversation" in (await fleet.ask(gateway, session, *turns)).headers

    for gateway in fleet.gateways[1:]:
        await until(partial(goes_on, gateway), "the conversation at another gateway")


async def vector_stores_of_all(fleet: Fleet) -> None:
    first, *others = fleet.gateways
    store = (await fleet.post(first, "vector_stores", {"name": "shared"}))["id"]
    for number, gateway in enumerate(others):
        text = {"text": f"note on subject s{number}", "filename": f"note{number}.txt"}
        (added,) = (await fleet.post(gateway, f"vector_stores/{store}/texts", {"texts": [text]}))["data"]
        assert added["status"] == "completed"
    for gateway in fleet.gateways:
        found = await fleet.post(gateway, f"vector_stores/{store}/search", {"query": "subject s1"})
        assert [each["filename"] for each in found["data"]] == ["note1.txt", "note0.txt"]


async def one_retrains_for_all(fleet: Fleet) -> None:
    """Thumbs at each of them show that the expert that serves is the worse one. One of them learns it: first the other
    expert challenges, then bets on its answers move the category."""
    registry = Registry(fleet.folder / "data" / "routers")
    environment = {**os.environ, **fleet.gateways[0].environment}
    pipe = asyncio.subprocess.PIPE
    for verdict in ("need more", "promote"):
        (before,) = await fleet.versions(f"before: {verdict}")
        await thumbs(fleet, verdict)
        command = [sys.executable, "-m", "coe", "retrain", "--json"]
        run = await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)
        out, error = await run.communicate()
        assert run.returncode == 0, error.decode()
        assert json.loads(out)["verdict"] == verdict, out
        live = registry.live()
        assert live.history[0] == before
        await until(partial(fleet.serves, live.version), "what was learned answers")


async def thumbs(fleet: Fleet, when: str) -> None:
    """Answers of each gateway, rated at the next one."""
    said = [
        await fleet.ask(fleet.gateways[n % COUNT], f"{when}-{n}", f"write a query number {n} that selects rows")
        for n in range(RATED)
    ]
    for number, answer in enumerate(said, start=1):
        thumb = {"kind": "thumb", "value": float(answer.headers["x-coe-expert"] == "right")}
        rated = {"decision_id": answer.headers["x-coe-decision-id"], **thumb}
        await fleet.post(fleet.gateways[number % COUNT], "feedback", rated)


async def rolling_restart_without_a_failed_request(fleet: Fleet) -> None:
    load = Balancer(fleet)
    for gateway in fleet.gateways:
        await load.more(20)
        await load.take_out(gateway)
        gateway.start()
        await gateway.wait_until_it_serves(fleet.client)
    await load.more(20)
    await load.end()
    assert load.failed == 0


async def kill_under_load(fleet: Fleet) -> None:
    load = Balancer(fleet)
    await load.more(20)
    await asyncio.to_thread(fleet.gateways[0].kill)
    await load.more(40)
    fleet.gateways[0].start()
    await fleet.gateways[0].wait_until_it_serves(fleet.client)
    await load.end()
