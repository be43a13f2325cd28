"""Real gateways killed by SIGKILL right behind an answer: what each mode of the log promises is there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from benchmarks.chaos_fleet import GatewayProcess, serving, write_config
from coe.decision_log.database import Database
from coe.decision_log.doctor import Diagnosis
from coe.decision_log.doctor_commands import drain_all, examine
from coe.decision_log.payloads import json_line
from coe.router.config.log import LogConfig
from tests.decision_log.running_log import spooled
from tests.waiting import until

ANSWERS = 24


def make_gateway(folder: Path, **log: object) -> GatewayProcess:
    """A gateway whose Redis is away, so that the spool keeps everything."""
    environment = {"REDIS_URL": f"unix://{folder}/none.sock"}
    return GatewayProcess(write_config(folder, **log), folder / "data", environment, folder / "gateway.log")


async def ask(gateway: GatewayProcess, client: aiohttp.ClientSession, number: int) -> str:
    answered = await gateway.ask(client, "polly", is_stream=number % 2 == 0, request_id=f"r{number}")
    assert answered is not None
    return answered


def spooled_ids(folder: Path) -> list[str]:
    return [json.loads(json_line(payload))["decision_id"] for payload in spooled(folder / "data")]


@pytest.mark.parametrize("durability", ["batched", "sync"])
async def test_kill_9_behind_the_answer_loses_nothing_in_the_modes_that_wait(durability: str, tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, durability=durability)
    async with serving(gateway) as client:
        asking = [asyncio.create_task(ask(gateway, client, number)) for number in range(ANSWERS)]
        answered = await asyncio.gather(*asking)
        gateway.kill()
    kept = spooled_ids(tmp_path)
    assert sorted(answered) == sorted(kept)
    found = await drained(tmp_path)
    assert found.is_healthy
    assert (found.decisions, found.rows) == (ANSWERS, ANSWERS)


async def test_kill_9_in_async_loses_only_what_was_not_spooled_yet(tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, durability="async")
    async with serving(gateway) as client:
        earlier = [await ask(gateway, client, number) for number in range(ANSWERS)]
        await until_spooled(gateway, client, ANSWERS)
        later = [await ask(gateway, client, number) for number in range(3)]
        gateway.kill()
    kept = spooled_ids(tmp_path)
    assert kept[:ANSWERS] == earlier
    assert kept[ANSWERS:] == later[: len(kept) - ANSWERS]
    found = await drained(tmp_path)
    assert (found.decisions, found.rows) == (ANSWERS + len(later), len(kept))
    lost = [number for each in found.findings[0].lost for number in each]
    assert lost == list(range(len(kept), ANSWERS + len(later)))


async def drained(folder: Path) -> Diagnosis:
    """The doctor's report once all that is left is in SQL."""
    store = Database(f"sqlite:///{folder / 'data' / 'coe.db'}")
    config = LogConfig()
    await drain_all(folder / "data", config, None, store)
    found = await examine(folder / "data", config, None, store)
    store.close()
    return found


async def until_spooled(gateway: GatewayProcess, client: aiohttp.ClientSession, count: int) -> None:
    async def is_spooled() -> bool:
        async with client.get(f"{gateway.url}/metrics") as answer:
            return f"coe_log_spooled_total {count}.0" in await answer.text()

    await until(is_spooled)
