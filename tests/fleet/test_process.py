"""The supervisor, with tiny real children."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from coe.base.errors import EngineError
from coe.fleet.processes.process import (
    ProcessSpec,
    ProcessState,
    RestartPolicy,
    SupervisedProcess,
    answers,
    keep_bounded,
)
from tests.processes import is_running
from tests.waiting import DEADLINE_S, until

QUICK = RestartPolicy(max_restarts=2, window_s=60.0, first_delay_s=0.02, max_delay_s=0.05)

SERVE = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text('{}'); time.sleep(600)"
DIE = "import sys; print('no such model: key=sesame'); sys.exit(3)"
NEVER_READY = "import time; print('loading', flush=True); time.sleep(600)"
DEAF = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[2]).write_text(str(grandchild.pid))
pathlib.Path(sys.argv[1]).write_text("{}")
time.sleep(600)
"""


async def is_there(path: Path) -> bool:
    return path.exists()


def spec_of(tmp_path: Path, code: str, *more: str, **fields: object) -> ProcessSpec:
    ready = tmp_path / "ready.json"
    argv = (sys.executable, "-c", code, str(ready), *more)
    values = {"is_ready": partial(is_there, ready), "start_timeout_s": DEADLINE_S, "stop_grace_s": DEADLINE_S}
    return ProcessSpec("engine", argv, tmp_path / "logs" / "engine.log", **(values | fields))


@asynccontextmanager
async def running(spec: ProcessSpec, policy: RestartPolicy = QUICK) -> AsyncIterator[SupervisedProcess]:
    process = SupervisedProcess(spec, restarts=policy)
    process.start()
    try:
        yield process
    finally:
        await process.stop()


async def test_a_child_becomes_ready_and_stops_on_request(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path, SERVE)) as process:
        assert process.status.state is ProcessState.STARTING
        await process.wait_ready()
        status = process.status
        assert (status.state, status.restarts, status.reason) == (ProcessState.READY, 0, None)
        assert is_running(status.pid)
    assert process.status.state is ProcessState.STOPPED
    assert not is_running(status.pid)
    assert process.status.pid is None


async def test_a_child_that_is_refused_before_it_serves_has_failed_with_the_reason(tmp_path: Path) -> None:
    async def refused() -> bool:
        raise EngineError("it is not what was asked for")

    async with running(spec_of(tmp_path, SERVE, is_ready=refused)) as process:
        with pytest.raises(EngineError, match="engine cannot be used: it is not what was asked for"):
            await process.wait_ready()
        assert process.status.state is ProcessState.FAILED


async def test_one_that_waits_for_its_turn_is_stopped_without_a_start(tmp_path: Path) -> None:
    turns, spec = asyncio.Lock(), spec_of(tmp_path, SERVE)
    process = SupervisedProcess(spec, turn=lambda: turns)
    async with turns:
        process.start()
        await process.stop()
    assert process.status.state is ProcessState.STOPPED
    assert not spec.log.exists()


async def test_ready_waits_for_the_url_too(tmp_path: Path) -> None:
    is_up = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = b"200 OK" if is_up.is_set() else b"503 Service Unavailable"
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        asked.set()
        writer.close()

    asked = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        running(spec_of(tmp_path, SERVE, is_ready=partial(answers, f"http://127.0.0.1:{port}/health"))) as process,
    ):
        await asyncio.wait_for(asked.wait(), DEADLINE_S)
        assert process.status.state is ProcessState.STARTING
        is_up.set()
        await asyncio.wait_for(process.wait_ready(), DEADLINE_S)


async def test_a_first_start_that_fails_is_told_with_status_log_and_last_lines(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path, DIE, secrets=("sesame",))) as process:
        with pytest.raises(EngineError) as caught:
            await process.wait_ready()
    assert str(caught.value) == (
        f"engine ended with exit status 3 before it was ready; log: {tmp_path}/logs/engine.log\n"
        "  no such model: key=***"
    )
    assert process.status.state is ProcessState.FAILED
    assert process.status.restarts == 0


async def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = ProcessSpec(
        "engine", ("/nowhere/python", "-m", "vllm"), tmp_path / "e.log", partial(is_there, tmp_path / "r")
    )
    async with running(spec) as process:
        with pytest.raises(EngineError, match=r"exit status 127 .*\n  cannot run /nowhere/python: No such file"):
            await process.wait_ready()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"env": {"A=B": "x"}}, "illegal environment variable name"), ({}, "Is a directory")],
)
async def test_what_cannot_be_started_at_all_fails_at_once(
    tmp_path: Path, fields: dict[str, object], reason: str
) -> None:
    if not fields:
        for name in ("engine.log", "engine.log.1"):
            (tmp_path / "logs" / name / "full").mkdir(parents=True)
    async with running(spec_of(tmp_path, SERVE, **fields)) as process:
        with pytest.raises(EngineError, match=rf"^engine cannot be started \(.*{reason}"):
            await asyncio.wait_for(process.wait_ready(), DEADLINE_S)
    assert process.status.state is ProcessState.FAILED


async def test_a_restart_for_which_nothing_is_left_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(spec_of(tmp_path, SERVE)) as process:
        await process.wait_ready()
        launch, refusals = process._launch, [OSError(errno.EAGAIN, "Resource temporarily unavailable")]

        async def seldom() -> asyncio.subprocess.Process:
            if refusals:
                raise refusals.pop()
            return await launch()

        monkeypatch.setattr(process, "_launch", seldom)
        os.kill(process.status.pid, signal.SIGKILL)
        await until(lambda: process.status.restarts == 2, "a second restart")
        await process.wait_ready()


async def test_a_full_disk_does_not_end_a_child_that_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    def copyfile(*_: object) -> None:
        asked.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coe.fleet.processes.process.shutil.copyfile", copyfile)
    monkeypatch.setattr("coe.fleet.processes.process.LOG_CHECK_S", 0.01)
    async with running(spec_of(tmp_path, "print('loaded', flush=True);" + SERVE, max_log_bytes=1)) as process:
        await process.wait_ready()
        await asyncio.wait_for(asked.wait(), DEADLINE_S)
        await asyncio.sleep(0.05)
        assert process.status.state is ProcessState.READY
        assert process.status.restarts == 0
        assert process.status.pid is not None


async def test_a_child_that_is_never_ready_is_ended_at_its_deadline(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path, NEVER_READY, start_timeout_s=0.3)) as process:
        pids = []
        await until(lambda: bool(process.status.pid and not pids.append(process.status.pid)), "a pid")
        with pytest.raises(EngineError, match=r"engine was not ready after 0\.3 s; log: "):
            await process.wait_ready()
        assert not is_running(pids[0])


async def test_a_killed_child_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(spec_of(tmp_path, SERVE)) as process:
        await process.wait_ready()
        first = process.status.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.status.restarts == 1, "a restart")
        await process.wait_ready()
        assert process.status.pid not in (None, first)
        assert "it is started again: engine ended with signal SIGKILL" in caplog.text
        assert process.status.state is ProcessState.READY


async def test_a_crash_loop_ends_in_failure_after_the_allowed_restarts(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path, SERVE)) as process:

        def kill_until_it_fails() -> bool:
            status = process.status
            if status.state is ProcessState.READY and status.pid is not None:
                with suppress(ProcessLookupError):  # killed by the look before, and not waited for yet
                    os.kill(status.pid, signal.SIGKILL)
            return status.state is ProcessState.FAILED

        await until(kill_until_it_fails, "failure")
        assert process.status.restarts == QUICK.max_restarts
        with pytest.raises(EngineError, match="engine ended with signal SIGKILL; log: "):
            await process.wait_ready()


async def test_stop_does_not_wait_for_the_back_off(tmp_path: Path) -> None:
    slow = RestartPolicy(first_delay_s=3600.0, max_delay_s=3600.0)
    async with running(spec_of(tmp_path, SERVE), slow) as process:
        await process.wait_ready()
        os.kill(process.status.pid, signal.SIGKILL)
        await until(lambda: process.status.state is ProcessState.BACKING_OFF, "back-off")
        assert "signal SIGKILL" in (process.status.reason or "")
        await asyncio.wait_for(process.stop(), DEADLINE_S)
    assert process.status.state is ProcessState.STOPPED


async def test_a_child_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "grandchild"
    async with running(spec_of(tmp_path, DEAF, str(pid_file), stop_grace_s=0.1)) as process:
        await process.wait_ready()
        child, grandchild = process.status.pid, int(pid_file.read_text())
    assert not is_running(child)
    await until(lambda: not is_running(grandchild), "the grandchild's end")


async def test_stop_while_starting_ends_the_child(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path, NEVER_READY)) as process:
        await until(lambda: process.status.pid is not None, "a pid")
        pid = process.status.pid
    assert not is_running(pid)
    with pytest.raises(EngineError, match="engine was stopped"):
        await process.wait_ready()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_the_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent_code = f"""
import asyncio, pathlib, sys
from coe.fleet.processes.process import ProcessSpec, SupervisedProcess
async def is_ready():
    return pathlib.Path({str(tmp_path / "ready")!r}).exists()
async def main():
    spec = ProcessSpec("engine", (sys.executable, "-c", {SERVE!r}, {str(tmp_path / "ready")!r}),
                       pathlib.Path({str(tmp_path / "log")!r}), is_ready=is_ready)
    process = SupervisedProcess(spec)
    process.start()
    await process.wait_ready()
    print(process.status.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", parent_code, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    child = int(await asyncio.wait_for(parent.stdout.readline(), DEADLINE_S))
    assert is_running(child)
    parent.kill()
    await parent.wait()
    await until(lambda: not is_running(child), "the child's end")


async def test_the_log_is_kept_once_and_not_mixed_with_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "engine.log"
    log.parent.mkdir()
    log.write_text("of last time\n")
    async with running(spec_of(tmp_path, DIE)) as process:
        with pytest.raises(EngineError):
            await process.wait_ready()
    assert log.read_text() == "no such model: key=sesame\n"
    assert (tmp_path / "logs" / "engine.log.1").read_text() == "of last time\n"


def test_a_log_that_grew_too_large_is_moved_aside_under_an_open_handle(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with log.open("ab", buffering=0) as handle:
        handle.write(b"x" * 100)
        keep_bounded(log, 100)
        assert log.stat().st_size == 100
        handle.write(b"y")
        keep_bounded(log, 100)
        handle.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "engine.log.1").read_bytes() == b"x" * 100 + b"y"


def test_delays_double_up_to_the_cap_and_spread() -> None:
    policy = RestartPolicy(first_delay_s=1.0, max_delay_s=8.0, jitter=0.25)
    for deaths, middle in ((1, 1.0), (2, 2.0), (4, 8.0), (40, 8.0)):
        delays = [policy.delay_s(deaths) for _ in range(200)]
        assert 0.75 * middle <= min(delays) < 0.8 * middle
        assert 1.2 * middle < max(delays) <= 1.25 * middle
    assert RestartPolicy(jitter=0.0).delay_s(3) == 2.0
