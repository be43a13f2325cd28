"""The backup of docs/deploy.md, taken while a gateway answers, has what was answered before, and disturbs nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import aiohttp

from benchmarks.chaos_fleet import GatewayProcess, serving, write_config
from tests.cli.documented_blocks import blocks
from tests.waiting import until


async def ask_on(gateway: GatewayProcess, client: aiohttp.ClientSession, answered: list[str | None]) -> None:
    while True:
        number = f"{len(answered)}"
        answered.append(await gateway.ask(client, "polly", is_stream=False, request_id=number))


async def test_of_a_gateway_at_work(tmp_path: Path) -> None:
    [block] = [each for each in blocks() if any("VACUUM INTO" in line for line in each.lines)]
    config, data = write_config(tmp_path, durability="sync"), tmp_path / "data"  # an answer's decision is on the disk
    for name in ("retrieval", "routers", "outcomes"):
        (data / name).mkdir(parents=True, mode=0o700)
    coe = (sys.executable, "-m", "coe", "log", "drain")
    options = ("--data-dir", str(tmp_path / "backup"), "--config", str(config))
    gateway = GatewayProcess(config, data, {"REDIS_URL": "", "DATABASE_URL": ""}, tmp_path / "log")
    async with serving(gateway) as client:
        answered: list[str | None] = []
        asking = asyncio.create_task(ask_on(gateway, client, answered))
        await until(lambda: len(answered) >= 50)
        before = set(answered)
        for line in block.runnable:
            await (await asyncio.create_subprocess_shell(line, cwd=tmp_path)).wait()  # `cp` may name a file that went
        drain = partial(subprocess.run, cwd=tmp_path, capture_output=True, check=True)
        await asyncio.to_thread(drain, [*coe, *options])
        asking.cancel()
    with closing(sqlite3.connect(tmp_path / "backup" / "coe.db")) as database:
        assert before <= {found for (found,) in database.execute("SELECT decision_id FROM decisions")}
    assert None not in answered
    assert "Redis" not in gateway.log.read_text().partition("gateway at")[2]
