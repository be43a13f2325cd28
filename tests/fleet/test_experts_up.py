"""`coe experts up` and the commands beside it, with fake vLLM servers as real processes on one small card."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from coe.base.errors import BackendError, EngineError
from coe.cli.terminal import Terminal
from coe.fleet.calls.connect import build_backends
from coe.fleet.calls.replicas import Replicas
from coe.fleet.hosts.engine_plans import free_port
from coe.fleet.hosts.engines import Fleet
from coe.fleet.hosts.experts_up import engine_lines, run_experts, watch
from coe.fleet.hosts.orphans import OWNER, end_orphans, orphans
from coe.fleet.hosts.vllm_host import hosted_vllm
from coe.fleet.processes.process import ProcessState, ProcessStatus
from coe.fleet.residency.types import Residency
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.vllm.addresses import EngineRecord, read_vllm
from coe.fleet.vllm.desired_state import DesiredProcesses
from coe.gateway.lifecycle.composition import engines_of
from coe.gateway.settings import Settings
from coe.router.config.composition import CoeConfig, parse_config
from tests.fake_vllm.interpreter import fake_interpreter
from tests.gateway.running import echoes, running
from tests.small_composition import composition_of
from tests.waiting import DEADLINE_S, until

ROOT = Path(__file__).parents[2]


def config_of(tmp_path: Path) -> CoeConfig:
    """Two experts of 50 and 40 GiB on a GPU of 80 GiB; the second one is awake after the start only while the first one
    sleeps."""
    args = {"enable-sleep-mode": True, "fake-card": str(tmp_path / "card"), "fake-weights-gib": 30}
    experts = {
        "coder": {"engine": "vllm", "model": "c", "gpu_gib": 50},
        "writer": {"engine": "vllm", "model": "w", "gpu_gib": 40},
    }
    vllm = {"python": fake_interpreter(tmp_path), "args": args, "gpus": {"0": 80}, "first_port": free_port(2)}
    return parse_config(composition_of(experts, vllm=vllm, residency={"memory_gb": 76}))


def actuator_of(data_dir: Path) -> VllmActuator:
    """As a gateway with `residency` has it."""
    return VllmActuator(lambda: read_vllm(data_dir).urls, DesiredProcesses(data_dir))


async def test_engines_take_turns_restart_stop_and_wake(tmp_path: Path) -> None:
    def engine(expert: str) -> EngineRecord:
        return read_vllm(tmp_path).engines_of(expert)[0]

    out = io.StringIO()
    run = asyncio.create_task(run_experts(config_of(tmp_path), ROOT, tmp_path, dict(os.environ), Terminal(file=out)))
    actuator = actuator_of(tmp_path)
    try:
        await until(lambda: run.done() or bool(read_vllm(tmp_path).urls), "the engines")
        assert not run.done()
        assert [await actuator.state(name) for name in ("coder", "writer")] == [Residency.AWAKE, Residency.SLEEP_2]
        assert engine("coder").gpus == "0"
        await until(lambda: "vllm-writer: ready, pid " in out.getvalue(), "a line about the engine")
        await actuator.sleep("coder", 1)
        await actuator.wake("writer")
        assert [await actuator.state(name) for name in ("coder", "writer")] == [Residency.SLEEP_1, Residency.AWAKE]
        assert (await engine_lines(tmp_path))[1].startswith("vllm-writer: awake, pid ")
        assert "experts: writer, GPU 0, restarts: 0" in (await engine_lines(tmp_path))[1]
        killed = engine("writer").pid
        os.kill(killed, signal.SIGKILL)
        await until(lambda: engine("writer").pid not in (None, killed), "another process")
        await until(lambda: engine("writer").state is ProcessState.READY, "a restart")
        killed = engine("coder").pid
        os.kill(killed, signal.SIGKILL)  # asleep: awake it would not fit beside the other one
        await until(lambda: engine("coder").state is ProcessState.STOPPED, "an engine that is left stopped")
        assert engine("coder").restarts == 0
        assert await actuator.state("coder") is Residency.STOPPED
        await actuator.sleep("writer", 2)
        await actuator.wake("coder")
        assert await actuator.state("coder") is Residency.AWAKE
        await actuator.stop("coder")
        assert engine("coder").state is ProcessState.STOPPED
        with pytest.raises(BackendError, match="no engine of this host serves 'codr'; did you mean 'coder'"):
            await actuator.wake("codr")
    finally:
        await actuator.aclose()
        if not run.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await run
    assert orphans(tmp_path) == ()
    with pytest.raises(BackendError, match="no vLLM engine runs"):
        await actuator.stop("coder")


async def test_engines_that_share_a_gpu_start_one_after_the_other_also_after_a_crash(tmp_path: Path) -> None:
    values = config_of(tmp_path).model_dump(mode="json")
    values["vllm"]["args"] |= {"fake-start-s": 0.6}
    values["vllm"]["first_port"] = free_port(3)
    values["experts"] = {name: {"engine": "vllm", "model": name, "gpu_gib": 20} for name in ("a", "b", "c")}
    fleet = Fleet(parse_config(values), ROOT, tmp_path, dict(os.environ))
    try:
        await fleet.start()  # the fake refuses to start while another one starts on its GPU, as vLLM does
        assert {status.state for status, _ in fleet.statuses} == {ProcessState.READY}
        killed = [status.pid for status, _ in fleet.statuses]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await until(
            lambda: all(
                status.pid not in (None, pid) and status.state is ProcessState.READY
                for pid, (status, _) in zip(killed, fleet.statuses, strict=True)
            ),
            "new processes",
        )
        assert [status.restarts for status, _ in fleet.statuses] == [1, 1, 1]
    finally:
        await fleet.stop()


async def test_an_engine_whose_weights_do_not_come_back_is_ended_and_started_again(tmp_path: Path) -> None:
    values = config_of(tmp_path).model_dump(mode="json")
    values["vllm"]["args"] |= {"fake-bugs": "wrong_weights"}
    config, actuator = parse_config(values), actuator_of(tmp_path)
    async with hosted_vllm(config, ROOT, tmp_path, dict(os.environ)) as host:
        await host.starting
        noted = read_vllm(tmp_path).engines_of("writer")[0].fingerprint
        assert noted.keys() == {"writer"}
        await actuator.sleep("coder", 1)
        with pytest.raises(BackendError, match="after sleep_2 writer on the engine of writer answers otherwise"):
            await actuator.wake("writer")
        assert await actuator.state("writer") is Residency.STOPPED
        await actuator.wake("writer")
        assert await actuator.state("writer") is Residency.AWAKE
        assert await actuator.examine("writer") == {read_vllm(tmp_path).urls["writer"][0]: noted}
    await actuator.aclose()


async def test_a_version_that_sleeps_in_another_way_does_not_start(tmp_path: Path) -> None:
    values = config_of(tmp_path).model_dump(mode="json")
    values["vllm"]["args"] |= {"fake-version": "0.12.0"}
    with pytest.raises(EngineError, match=r"cannot be used: the engine of vllm-coder is vLLM 0\.12, which may"):
        await run_experts(parse_config(values), ROOT, tmp_path, dict(os.environ), Terminal(file=io.StringIO()))


async def test_coe_up_runs_the_engines_where_nobody_else_does(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    settings = Settings(config_path=tmp_path / "experts.yaml", data_dir=tmp_path)
    async with AsyncExitStack() as stack:
        addresses = await (await engines_of(stack, settings, config, runs_vllm=True)).start()
        assert addresses.urls == read_vllm(tmp_path).urls
        await DesiredProcesses(tmp_path).stop("coder")
        assert (await engine_lines(tmp_path))[0].startswith("vllm-coder: stopped, experts: coder, GPU 0")
        with pytest.raises(EngineError, match=rf"process {os.getpid()}, another coe, runs the engines"):
            await run_experts(config, ROOT, tmp_path, dict(os.environ), Terminal(file=io.StringIO()))
        async with AsyncExitStack() as second:
            fleet = await engines_of(second, settings, config, runs_vllm=True)
            assert (await fleet.start()).urls == addresses.urls  # those of the first, and none started
            assert fleet.statuses == ()
    assert read_vllm(tmp_path).engines == ()


async def test_no_signal_cuts_the_end_of_the_engines_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = []

    async def start(_fleet: Fleet) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    async def stop(_fleet: Fleet) -> None:
        handlers.extend(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)))

    usual = [*map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))]
    monkeypatch.setattr(Fleet, "start", start)
    monkeypatch.setattr(Fleet, "stop", stop)
    await run_experts(config_of(tmp_path), ROOT, tmp_path, dict(os.environ), Terminal(file=io.StringIO()))
    assert all(handler not in (signal.SIG_DFL, *usual) for handler in handlers)
    assert len(handlers) == 2


async def test_each_engine_is_shown_by_a_line() -> None:
    def status(name: str, state: ProcessState, pid: int | None, reason: str | None) -> ProcessStatus:
        return ProcessStatus(name, state, pid, restarts=2, reason=reason)

    coder = status("vllm-coder", ProcessState.READY, 12, None), ("coder", "tester")
    writer = status("vllm-writer", ProcessState.FAILED, None, "no memory"), ("writer",)
    fleet, out = SimpleNamespace(statuses=(coder, writer)), io.StringIO()
    stop = asyncio.Event()
    stop.set()
    await watch(SimpleNamespace(fleet=fleet, starting=asyncio.Future()), Terminal(file=out), stop)
    assert out.getvalue().splitlines() == [
        "vllm-coder: ready, pid 12, experts: coder, tester",
        "vllm-writer: failed, experts: writer; no memory",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_engines_whose_starter_is_gone_are_found_and_ended(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    marks = {"orphan": f"{tmp_path}:{gone.pid}", "ours": f"{tmp_path}:{os.getpid()}", "other": f"/else:{gone.pid}"}
    started = {
        name: subprocess.Popen(["sleep", "600"], env={**os.environ, OWNER: mark}) for name, mark in marks.items()
    }
    try:
        assert await end_orphans(tmp_path) == (started["orphan"].pid,)
        assert orphans(tmp_path) == ()
        assert started["orphan"].wait(DEADLINE_S) == -signal.SIGKILL
        assert started["ours"].poll() is None
    finally:
        for process in started.values():
            process.kill()
            process.wait()


@pytest.mark.slow
async def test_a_replica_that_is_killed_loses_no_request_and_comes_back(tmp_path: Path) -> None:
    values = config_of(tmp_path).model_dump(mode="json")
    values["experts"] = {"coder": values["experts"]["coder"] | {"replicas": 2}}
    values["vllm"] |= {"gpus": {"0": 80, "1": 80}}
    values["vllm"]["args"] |= {"fake-tokens-per-s": 50, "fake-answer-tokens": 25}
    config = parse_config(values)

    def engines() -> list[EngineRecord]:
        return read_vllm(tmp_path).engines_of("coder")

    run = asyncio.create_task(run_experts(config, ROOT, tmp_path, dict(os.environ), Terminal(file=io.StringIO())))
    await until(lambda: run.done() or bool(read_vllm(tmp_path).urls), "the engines")
    assert [each.gpus for each in engines()] == ["0", "1"]
    backend = build_backends(config, read_vllm(tmp_path).urls, {}, {})["coder"]
    assert isinstance(backend, Replicas)
    answered = Counter[int]()

    async def ask(client: int) -> None:
        for turn in range(6):
            async with gateway.chat(f"{client} {turn}", model="ruby", user=f"{client}") as answer:
                choices = (await answer.json()).get("choices")
                answered[answer.status] += bool(choices and choices[0]["finish_reason"] == "stop")

    stack, actuator = AsyncExitStack(), actuator_of(tmp_path)
    try:
        gateway = await stack.enter_async_context(running(echoes(ruby=backend)))
        clients = asyncio.gather(*(ask(client) for client in range(16)))
        await until(lambda: answered[200] > 16 and min(each.running for each in backend.all) > 2, "some answers")
        killed = engines()[0].pid
        os.kill(killed, signal.SIGKILL)
        await clients
        assert answered == {200: 96}
        await until(lambda: engines()[0].restarts == 1 and engines()[0].state is ProcessState.READY, "a new one")
        assert engines()[1].restarts == 0
        await actuator.sleep("coder", 1)
        assert [line.split(", ")[0] for line in await engine_lines(tmp_path)] == [
            "vllm-coder: sleep_1",
            "vllm-coder@2: sleep_1",
        ]
        await actuator.wake("coder")
        await actuator.stop("coder")
        assert {each.state for each in engines()} == {ProcessState.STOPPED}
        await actuator.wake("coder")
        await until(lambda: "ruby" in gateway.parts.pool.alive, "the engines")
        await asyncio.gather(*(ask(client) for client in range(16)))
        assert answered == {200: 192}
    finally:
        await stack.aclose()
        await actuator.aclose()
        if not run.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await run
