"""Fifty clients against one budget over three real gateways, which share Valkey and SQL and nothing else."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import yaml

from benchmarks.chaos_fleet import EXPERT, GatewayProcess, serving, write_config
from tests.gateway.keys.test_limits import counters
from tests.waiting import until

CLIENTS, WORDS = 50, 60
PRICE = 0.001  # USD per word, in and out
BUDGET = 0.45


def priced_config(folder: Path) -> Path:
    path = write_config(folder)
    values = yaml.safe_load(path.read_text())
    values["experts"][EXPERT] |= {"price": {"input": PRICE * 1e6, "output": PRICE * 1e6}}
    path.write_text(yaml.safe_dump(values))
    return path


def coe_keys(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "coe", "keys", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


async def test_fifty_clients_over_three_gateways_keep_one_budget(tmp_path: Path, redis_url: str) -> None:
    from redis import Redis

    config = priced_config(tmp_path)
    shared = {"REDIS_URL": redis_url, "DATABASE_URL": f"sqlite:///{tmp_path / 'shared.db'}", "COE_CONFIG": str(config)}
    made = coe_keys({**os.environ, **shared}, "create", "acme", "--usd", f"{BUDGET}/month")
    key_id, secret = re.search(r"key (\S+);", made)[1], made.splitlines()[-1]
    gateways = [
        GatewayProcess(config, tmp_path / f"data{number}", shared, tmp_path / f"gateway{number}.log")
        for number in range(3)
    ]
    served_words: list[int] = []
    refusals: list[tuple[int, str]] = []

    async def client(number: int, session: aiohttp.ClientSession) -> None:
        body = {
            "model": EXPERT,
            "max_tokens": WORDS,
            "stream": number % 2 == 0,
            "messages": [{"role": "user", "content": " ".join(["a"] * WORDS)}],
        } | ({"stream_options": {"include_usage": True}} if number % 2 == 0 else {})
        url = f"{gateways[number % 3].url}/v1/chat/completions"
        for _ in range(4):
            async with session.post(url, json=body, headers={"authorization": f"Bearer {secret}"}) as answer:
                await answer.read()
                if answer.status == 200:
                    served_words.append(2 * WORDS)
                else:
                    refusals.append((answer.status, (await answer.json())["error"]["code"]))

    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(serving(gateway)) for gateway in gateways]
        await asyncio.gather(*(client(number, sessions[number % 3]) for number in range(CLIENTS)))
        spent = round(sum(served_words) * PRICE, 6)
        with Redis.from_url(redis_url) as redis:
            await until(lambda: counters(redis) == {f"{key_id}:usd/month": round(spent * 1e9)})
        assert await asyncio.gather(*(gateway.stop() for gateway in gateways)) == [0, 0, 0]
    assert spent == 0.36, "three fit, and a fourth might not have"
    assert set(refusals) == {(429, "insufficient_quota")}
    assert len(refusals) == 4 * CLIENTS - 3
