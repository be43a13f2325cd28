"""The whole process: binding, signals, an orderly end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
import uvloop

from coe.base.errors import ConfigError
from coe.fleet.calls.backend import BackendRequest, BackendResponse
from coe.fleet.calls.chat_completions import TextBackend, last_question
from coe.gateway.http.listener import bind
from coe.gateway.lifecycle.serve import Gateway
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.running import faulty, running
from tests.gateway.small_router import EXPERTS
from tests.waiting import DEADLINE_S, until

PROGRAM = """
import asyncio, sys
from pathlib import Path
from coe.fleet.processes.stop_signal import stop_on_signal
from coe.fleet.calls.pool import ExpertPool
from coe.gateway.parts import Parts
from coe.gateway.routers.live_router import live_router
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.settings import environment_settings
from coe.base.errors import RouterError
from tests.gateway import running as support
import coe.gateway.routers.live_router

class Log(support.MemoryLog):
    async def aclose(self):
        print("flushed", *[record.state.value for record in self.records], flush=True)

async def serve(settings, config, experts):
    sink = Log()
    parts = Parts(config, ExpertPool(experts), live_router(settings, config), sink, support.MemoryStore())
    served = Gateway(parts, host=settings.host, port=settings.port)
    with stop_on_signal() as stop:
        try:
            print("port", await served.start(), flush=True)
            await stop.wait()
            await served.drain(stop.urgent)
        finally:
            await served.stop()
            await sink.aclose()

coe.gateway.routers.live_router.load_router = lambda config, folder, encoder: support.small_router(version=folder.name)
experts = support.echoes(ruby=support.provider(sys.argv[1], "ruby"))
config = support.config_of(shutdown_grace_s=float(sys.argv[2]), drain_s=float(sys.argv[3]))
try:
    settings = environment_settings()
    asyncio.run(serve(settings, config, experts))
except RouterError as error:
    sys.exit(f"error: {error}")
"""


@asynccontextmanager
async def process(
    folder: Path, upstream_url: str, grace_s: float = DEADLINE_S, drain_s: float = 0.0, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gateway process with a promoted router; killed in the end if it still runs."""
    (folder / "routers").mkdir(parents=True)
    (folder / "routers" / "live.json").write_text('{"version": "abc", "promoted_at": "", "history": []}')
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, upstream_url, str(grace_s), str(drain_s),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COE_DATA_DIR": str(folder), "COE_PORT": "0", **environment},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def line(child: asyncio.subprocess.Process) -> list[str]:
    return (await asyncio.wait_for(child.stdout.readline(), DEADLINE_S)).decode().split()


async def test_check_40_sigterm_ends_streams_flushes_and_exits_0(tmp_path: Path) -> None:
    async with fault_upstream("paced") as upstream, process(tmp_path, upstream.url) as child:
        port = int((await line(child))[1])
        body = {"model": "auto", "messages": [{"role": "user", "content": "red"}], "stream": True}
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
            client.post("/v1/chat/completions", json=body) as answer,
        ):
            await answer.content.readuntil(b"\n\n")
            child.send_signal(signal.SIGTERM)
            await refused(port)
            upstream.gate.set()
            assert (await answer.read()).endswith(b"data: [DONE]\n\n")
        assert await line(child) == ["flushed", "answered"]
        assert await asyncio.wait_for(child.wait(), DEADLINE_S) == 0


async def test_check_40_what_outlives_its_grace_is_cut_visibly(tmp_path: Path) -> None:
    async with fault_upstream("paced") as upstream, process(tmp_path, upstream.url, grace_s=1.0) as child:
        port = int((await line(child))[1])
        body = {"model": "auto", "messages": [{"role": "user", "content": "red"}], "stream": True}
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
            client.post("/v1/chat/completions", json=body) as answer,
        ):
            await answer.content.readuntil(b"\n\n")
            child.send_signal(signal.SIGTERM)
            rest = await answer.read()
        assert b"server_shutting_down" in rest
        assert b"[DONE]" not in rest
        assert await line(child) == ["flushed", "upstream_error"]
        assert await asyncio.wait_for(child.wait(), DEADLINE_S) == 0


async def test_a_rolling_deploy_refuses_nobody(tmp_path: Path) -> None:
    """Clients that go by /readyz, each request on a connection of its own, never meet a closed door."""
    async with (
        fault_upstream() as upstream,
        process(tmp_path / "old", upstream.url, drain_s=1e6) as old,
        process(tmp_path / "new", upstream.url) as new,
    ):
        ports = [int((await line(child))[1]) for child in (old, new)]
        ready = [True, True]
        statuses: list[tuple[int, int]] = []
        asking = Counter[int]()

        async def probe() -> None:
            while True:
                ready[:] = [await status_of(port, "/readyz") == 200 for port in ports]
                await asyncio.sleep(0.02)

        async def ask() -> None:
            while True:
                port = ports[0] if ready[0] else ports[1]
                asking[port] += 1
                statuses.append((port, await status_of(port, "/v1/chat/completions")))
                asking[port] -= 1

        tasks = [asyncio.create_task(work()) for work in (probe, ask, ask, ask)]
        await until(lambda: len(statuses) > 20)
        old.send_signal(signal.SIGTERM)
        await until(lambda: not ready[0])
        assert await status_of(ports[0], "/v1/chat/completions") == 200, "it is not ready, and still serves"
        await until(lambda: not asking[ports[0]], "that nobody asks it any more")
        old.send_signal(signal.SIGTERM)  # ends what would take a while
        assert await asyncio.wait_for(old.wait(), DEADLINE_S) == 0
        after = len(statuses)
        await until(lambda: len(statuses) > after + 20)
        assert not any(task.done() for task in tasks), tasks
        for task in tasks:
            task.cancel()
        assert {status for _, status in statuses} == {200}
        assert {port for port, _ in statuses} == set(ports)


async def status_of(port: int, path: str) -> int:
    """The status of one request on a connection of its own; one that is refused raises. A gone gateway is not ready."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "green"}]}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        if path != "/readyz":
            async with client.post(path, json=body) as answer:
                await answer.read()
                return answer.status
        try:
            async with client.get(path) as answer:
                return answer.status
        except aiohttp.ClientConnectionError:
            return 503


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]], ids=["Ctrl-C", "twice"])
async def test_a_person_does_not_wait_for_the_drain(tmp_path: Path, signals: list[signal.Signals]) -> None:
    async with process(tmp_path, "http://127.0.0.1:1/v1", drain_s=1e6) as child:
        port = int((await line(child))[1])
        for number in signals:
            child.send_signal(number)
            while len(signals) > 1 and await status_of(port, "/readyz") != 503:
                pass
        assert await line(child) == ["flushed"]
        assert await asyncio.wait_for(child.wait(), DEADLINE_S) == 0


async def test_while_it_drains_every_answer_is_the_last_of_its_connection() -> None:
    async with running(drain_s=1e6) as gateway:
        urgent = asyncio.Event()
        async with gateway.chat("red") as answer:
            assert "connection" not in answer.headers
        draining = asyncio.create_task(gateway.gateway.drain(urgent))
        await until(lambda: gateway.parts.is_stopping)
        async with gateway.chat("red") as answer:
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        async with gateway.client.get(f"{gateway.root}/readyz") as answer:
            assert (answer.status, (await answer.json())["missing"]) == (503, ["the gateway is stopping"])
        assert not draining.done()
        urgent.set()
        await asyncio.wait_for(draining, DEADLINE_S)
    async with running(drain_s=0.01) as gateway:
        await asyncio.wait_for(gateway.gateway.drain(asyncio.Event()), DEADLINE_S)


class HeldEcho(TextBackend):
    """Echoes once `may_answer` is set."""

    def __init__(self) -> None:
        super().__init__("echo", last_question)
        self.may_answer = asyncio.Event()

    async def send(self, request: BackendRequest) -> BackendResponse:
        await self.may_answer.wait()
        return await super().send(request)


def test_a_request_that_begins_as_the_gateway_stops_gets_no_answer_without_a_row() -> None:
    """On the event loop of `coe serve`, which serves a connection that it accepted just before the port was closed."""
    body = b'{"model": "auto", "messages": [{"role": "user", "content": "red"}]}'
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    chat = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def stopped(turns: int) -> tuple[int, str]:
        """Rows at the end of a stop that began so many turns of the loop after a chat was sent, and the status of
        its answer. The expert answers after the stop: what the gateway waits for is cut at the end of its grace."""
        expert, answer = HeldEcho(), b""
        async with running(dict.fromkeys(EXPERTS, expert), shutdown_grace_s=0.01) as gateway:
            with socket.create_connection(("127.0.0.1", gateway.gateway.port), DEADLINE_S) as client:
                client.sendall(chat)
                for _ in range(turns):
                    await asyncio.sleep(0)
                await asyncio.wait_for(gateway.gateway.stop(), DEADLINE_S)
                rows = len(gateway.log.records)
                expert.may_answer.set()
                with suppress(ConnectionResetError), client.makefile("rb") as received:
                    answer = await asyncio.to_thread(received.read)
            assert len(gateway.log.records) == rows
        return rows, answer[9:12].decode()

    async def all_stopped() -> list[tuple[int, str]]:
        return [await stopped(turns) for turns in range(8)]

    outcomes = uvloop.run(all_stopped())
    assert set(outcomes) - {(0, "")} == {(0, "503"), (1, "503")}, "not accepted; refused, cut"


async def test_check_25_fails_closed_with_one_line(tmp_path: Path) -> None:
    async with process(tmp_path, "http://127.0.0.1:1/v1", COE_HOST="0.0.0.0", COE_API_KEYS="") as child:
        _, errors = await asyncio.wait_for(child.communicate(), DEADLINE_S)
        assert child.returncode == 1
    lines = errors.decode().strip().splitlines()
    assert len(lines) == 1
    assert "COE_API_KEYS" in lines[0]


async def refused(port: int) -> None:
    """Returns once nobody accepts connections there."""
    with suppress(ConnectionError):  # refused, or reset while the socket closes
        while True:
            (await asyncio.open_connection("127.0.0.1", port))[1].close()


def test_port_taken_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}.*COE_PORT"):
            bind("127.0.0.1", port)


async def test_port_taken_leaves_the_first_gateway_alone() -> None:
    async with running() as first:
        second = Gateway(first.parts, port=first.gateway.port)
        with pytest.raises(ConfigError):
            await second.start()
        async with first.chat("red") as answer:
            assert answer.status == 200


async def test_slow_reader_bounds_what_is_read_ahead() -> None:
    """Check 9: an endless stream to a client that does not read stops the upstream after a few buffers."""
    async with faulty("endless") as (gateway, upstream):
        async with gateway.chat("red", stream=True) as answer:
            assert answer.status == 200
            seen = -1
            while upstream.bytes_sent != seen:
                seen = upstream.bytes_sent
                await asyncio.sleep(0.3)
            assert 0 < seen < 64 << 20
            answer.close()
        await asyncio.wait_for(upstream.cancelled.wait(), DEADLINE_S)


async def test_a_client_that_takes_nothing_of_its_answer_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.gateway.http.protocol.STALL_S", 0.5)
    async with faulty("endless", max_concurrency=1) as (gateway, upstream):
        async with gateway.chat("red", stream=True) as answer:
            assert answer.status == 200
            await asyncio.wait_for(upstream.cancelled.wait(), DEADLINE_S)
            assert (await gateway.record()).state == "client_gone"
        upstream.mode = "ok"
        async with gateway.chat("red") as answer:
            assert answer.status == 200
