"""`coe config` and `GET /v1/admin/config` against real processes: a gateway under load, the file, its copies."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from pydantic import SecretStr

from benchmarks.chaos_fleet import GatewayProcess, serving
from coe.decision_log.admin_log import AdminLog, operator
from coe.decision_log.connections import opened_database
from coe.decision_log.default_database import default_database_url
from coe.fleet.processes.program_log import LogReporter
from coe.gateway.changes.in_force import put, put_start
from coe.gateway.lifecycle.composition import running_composition
from coe.gateway.lifecycle.start import agreed_config
from coe.gateway.settings import Settings
from tests.gateway.fault_upstream import fault_upstream
from tests.training.trained_folder import make_trained
from tests.waiting import until

ASKERS = 4


def edit(config: Path, **sections: Any) -> None:
    """Writes experts.yaml with other sections; of `experts`, None takes one out."""
    values = yaml.safe_load(config.read_text())
    for name, section in sections.items():
        merged = {**values.get(name, {}), **section}
        values[name] = {key: value for key, value in merged.items() if value is not None}
    config.write_text(yaml.safe_dump(values))


def coe(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "coe", *arguments],
        env={**os.environ, "COE_CONFIG": str(folder / "experts.yaml"), "COE_DATA_DIR": str(folder / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def call(gateway: GatewayProcess, method: str, path: str, **body: Any) -> tuple[int, Any]:
    """One request on a connection of its own."""
    async with (
        aiohttp.ClientSession() as alone,
        alone.request(method, f"{gateway.url}/v1/{path}", **body) as answer,
    ):
        return answer.status, json.loads(await answer.read())


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "SELECT the tallest mountain"}]}


async def serves(gateway: GatewayProcess, *names: str) -> None:
    """Returns once the gateway serves exactly these experts."""

    async def is_so() -> bool:
        return {each["name"] for each in (await call(gateway, "GET", "experts"))[1]["data"]} == {*names}

    await until(is_so, f"the gateway serves {', '.join(names)}")


@asynccontextmanager
async def asked_all_the_time(gateway: GatewayProcess) -> AsyncIterator[list[int]]:
    """The statuses of routed chats, asked one after the other by several clients."""
    statuses: list[int] = []
    is_over = False

    async def ask() -> None:
        while not is_over:
            statuses.append((await call(gateway, "POST", "chat/completions", json=chat("auto")))[0])

    tasks = [asyncio.create_task(ask()) for _ in range(ASKERS)]
    try:
        yield statuses
    finally:
        is_over = True
        await asyncio.gather(*tasks)


@pytest.mark.slow
async def test_a_gateway_follows_every_change_and_no_request_fails(tmp_path: Path) -> None:
    make_trained(tmp_path)
    config = tmp_path / "experts.yaml"
    gateway = GatewayProcess(config, tmp_path / "data", {}, tmp_path / "gateway.log")
    async with fault_upstream() as upstream, serving(gateway) as client:
        async with asked_all_the_time(gateway) as statuses:
            new = {"engine": "openai", "model": "m", "url": upstream.url, "price": {"output": 3.0}}
            edit(config, experts={"new": new}, policies={"default": {}, "other": {}})
            status, said = await asyncio.to_thread(coe, tmp_path, "config", "apply", "--dry-run")
            assert (status, said.splitlines()) == (0, ["experts.new: added", "policies.other: added"])
            assert (await call(gateway, "GET", "admin/config"))[1]["number"] == 1, "a dry run changes nothing"
            status, said = await asyncio.to_thread(coe, tmp_path, "config", "apply")
            assert status == 0, said
            await serves(gateway, "left", "right", "new")
            assert (await call(gateway, "POST", "chat/completions", json=chat("auto:other")))[0] == 200
            assert (await call(gateway, "POST", "chat/completions", json=chat("new")))[0] == 200

            upstream.mode = "paced"
            upstream.arrived.clear()
            streaming = asyncio.create_task(
                call_stream(gateway, {**chat("new"), "stream": True}),
            )
            await upstream.arrived.wait()
            edit(config, experts={"new": None}, policies={"other": {"budgets": {"active_params_b": 1.0}}})
            status, said = await asyncio.to_thread(coe, tmp_path, "config", "apply")
            assert status == 0, said
            await serves(gateway, "left", "right")
            _, state = await call(gateway, "GET", "admin/config")
            assert (state["number"], state["served"], state["problem"]) == (3, 3, None)
            assert (await call(gateway, "POST", "chat/completions", json=chat("new")))[0] == 404
            upstream.gate.set()
            assert (await streaming).endswith(b"data: [DONE]\n\n"), "it keeps the expert that is gone for others"

            edit(config, policies={"default": {"pins": {"sql": "nobody"}}})
            status, said = await asyncio.to_thread(coe, tmp_path, "config", "apply")
            assert status == 1
            assert "policies.default.pins.sql: unknown expert 'nobody'" in said
            edit(config, policies={"default": {}}, log={"privacy": "none"})
            status, said = await asyncio.to_thread(coe, tmp_path, "config", "apply")
            assert status == 1
            assert "log.privacy: needs a restart of the gateway" in said
            assert (await call(gateway, "GET", "admin/config"))[1]["number"] == 3

            status, said = await asyncio.to_thread(coe, tmp_path, "config", "apply", "--back")
            assert status == 0, said
            assert "experts.new: added" in said
            await serves(gateway, "left", "right", "new")
            with opened_database(tmp_path / "data") as database:
                assert [each[2:7] for each in AdminLog(database).actions()] == [
                    (operator(), "apply", "configuration", "1", "2"),
                    (operator(), "apply", "configuration", "2", "3"),
                    (operator(), "back", "configuration", "3", "4"),
                ]
        assert len(statuses) > 100
        assert statuses.count(200) == len(statuses)
        gateway.kill()
        gateway.start()
        await gateway.wait_until_it_serves(client)
        await serves(gateway, "left", "right", "new")


async def call_stream(gateway: GatewayProcess, body: dict[str, Any]) -> bytes:
    async with (
        aiohttp.ClientSession() as alone,
        alone.post(f"{gateway.url}/v1/chat/completions", json=body) as answer,
    ):
        return await answer.read()


async def test_what_a_gateway_cannot_take_is_told_and_changes_nothing(tmp_path: Path, redis_url: str) -> None:
    make_trained(tmp_path)
    config, key = tmp_path / "experts.yaml", "an-admins-key-of-the-environment"
    text = config.read_text()
    settings = Settings(
        config_path=config,
        data_dir=tmp_path / "data",
        redis_url=SecretStr(redis_url),
        database_url=SecretStr(default_database_url(tmp_path / "data")),
        port=0,
        api_keys=(SecretStr(key),),
    )
    start, _ = agreed_config(settings)
    found = put_start(settings.data_dir, start)
    async with running_composition(settings, start.config, LogReporter(), found) as gateway:
        url = f"{gateway.url}/admin/config"
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as client:

            async def warnings() -> list[str]:
                async with client.get(f"{gateway.url.removesuffix('/v1')}/readyz") as answer:
                    return list((await answer.json())["warnings"])

            before = await warnings()
            put(settings.data_dir, f"{text}\nlog: {{privacy: none}}\n", text, "another gateway's operator")
            await until(lambda: has_grown(warnings, before), "the refusal is shown")
            assert "log.privacy: needs a restart of the gateway" in (await warnings())[-1]
            async with client.get(url) as answer:
                state = await answer.json()
        assert (state["number"], state["served"]) == (2, 1)
        assert "log.privacy" in state["problem"]


async def has_grown(warnings: Callable[[], Awaitable[list[str]]], before: list[str]) -> bool:
    return len(await warnings()) > len(before)
