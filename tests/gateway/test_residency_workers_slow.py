"""`coe serve --workers 2` over engines that take turns, all real processes: the worker that decides is killed while an
engine wakes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import yaml

from benchmarks.chaos_fleet import GatewayProcess, serving
from coe.fleet.engine_plans import free_port
from coe.fleet.residency.types import Residency
from coe.fleet.residency.vllm_actuator import VllmActuator
from tests.gateway.test_workers import samples
from tests.training.trained_folder import make_trained
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

ROOT = Path(__file__).parents[2]
LEFT, RIGHT = "left", "right"
WAKE_S = 8.0
GPU_GIB = 80.0


@asynccontextmanager
async def engines(folder: Path) -> AsyncIterator[dict[str, str]]:
    """Fakes of 50 GiB on one GPU of 80, the left one awake; API root by expert. Fails where one has ended."""
    urls, processes = {name: f"http://127.0.0.1:{free_port()}/v1" for name in (RIGHT, LEFT)}, []
    actuator = VllmActuator(lambda: {name: (url,) for name, url in urls.items()})

    async def serves(name: str) -> bool:
        return await actuator.state(name) is Residency.AWAKE

    try:
        for name, url in urls.items():
            words = ["--model", "m", "--served-model-name", name, "--port", url.split(":")[2].removesuffix("/v1")]
            words += ["--enable-sleep-mode", "--gpu-memory-utilization", str(50 / GPU_GIB)]
            words += ["--fake-card", str(folder / "card"), "--fake-wake-s", f"{WAKE_S},{WAKE_S}"]
            command = [sys.executable, "-P", "-m", "tests.fake_vllm", *words]
            environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1", "PYTHONPATH": str(ROOT)}
            processes.append(subprocess.Popen(command, env=environment))
            await until(lambda name=name: serves(name), f"the engine of {name}")
            if name == RIGHT:
                await actuator.sleep(name, 2)
        yield urls
        assert [process.poll() for process in processes] == [None, None]
    finally:
        await actuator.aclose()
        for process in processes:
            process.kill()
            process.wait()


def worker_pid(folder: Path, worker: str) -> int:
    """Process id of `worker-1` and so on."""
    number = str(int(worker.removeprefix("worker-")) - 1)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            environment = (entry / "environ").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        # The plan may lie elsewhere: a long name of the folder leaves no room for sockets in it.
        is_ours = f"COE_DATA_DIR={folder / 'data'}" in environment
        if is_ours and "serve-worker" in words and words[words.index("serve-worker") + 2] == number:
            return int(entry.name)
    raise AssertionError(f"no process is {worker}")


async def chat(gateway: GatewayProcess, model: str) -> tuple[int, str]:
    """Status and expert of an answer on a connection of its own; 0 where the connection broke."""
    body = {"model": model, "messages": [{"role": "user", "content": "what is the tallest mountain?"}]}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as alone,
            alone.post(f"{gateway.url}/v1/chat/completions", json=body) as answer,
        ):
            await answer.read()
            return answer.status, answer.headers.get("x-coe-expert", "")
    except aiohttp.ClientError:
        return 0, ""


async def test_another_worker_ends_the_wake_that_a_killed_one_had_begun(tmp_path: Path) -> None:
    make_trained(tmp_path, experts=(LEFT, RIGHT))
    config = tmp_path / "experts.yaml"
    async with AsyncExitStack() as stack:
        urls = await stack.enter_async_context(engines(tmp_path))
        values = yaml.safe_load(config.read_text())
        values["experts"] = {
            name: {"engine": "vllm", "model": name, "url": urls[name], "gpu_gib": 50} for name in (LEFT, RIGHT)
        }
        values["residency"] = {"memory_gb": GPU_GIB}
        config.write_text(yaml.safe_dump(values))
        gateway = GatewayProcess(config, tmp_path / "data", {}, tmp_path / "gateway.log", workers=2)
        client = await stack.enter_async_context(serving(gateway))

        async def has_started() -> bool:
            return gateway.has_started_workers

        await until(has_started, "all workers")
        assert await chat(gateway, "auto") == (200, LEFT)
        (decider,) = [name for name, value in (await samples(gateway, client, "coe_engine_decides")).items() if value]
        named: list[asyncio.Task[tuple[int, str]]] = []

        async def all_wait() -> bool:
            named.append(asyncio.create_task(chat(gateway, RIGHT)))
            waiting = await samples(gateway, client, "coe_engine_waiting_requests")
            return len(waiting) == 2 and min(waiting.values()) > 0

        await until(all_wait, "requests that wait at both workers")
        actuator = VllmActuator(lambda: {name: (url,) for name, url in urls.items()})
        stack.push_async_callback(actuator.aclose)

        async def wakes() -> bool:
            return await actuator.state(LEFT) is not Residency.AWAKE

        await until(wakes, "the change")
        os.kill(worker_pid(tmp_path, decider), signal.SIGKILL)
        routed = asyncio.create_task(chat(gateway, "auto"))
        answers = await asyncio.gather(*named)
        assert {status for status, _ in answers} == {0, 200}, gateway.log.read_text()[-3000:]
        assert {expert for status, expert in answers if status == 200} == {RIGHT}
        assert (await routed)[0] in (0, 200)

        async def is_settled() -> bool:
            decides = await samples(gateway, client, "coe_engine_decides")
            return len(decides) == 2 and sum(decides.values()) == 1

        await until(is_settled, "one that decides")
        states = [await actuator.state(name) for name in (LEFT, RIGHT)]
        assert states.count(Residency.AWAKE) == 1
        awake = (LEFT, RIGHT)[states.index(Residency.AWAKE)]
        assert {await chat(gateway, "auto") for _ in range(6)} == {(200, awake)}
