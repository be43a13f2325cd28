"""Costs of a chat and its record, in counts that hold on every machine, against the figures of tests/costs.toml."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import tomllib
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
import uvloop
from redis import Redis
from sqlalchemy import event

from coe.base.shipped import DEFAULT_CONFIG, shipped_root
from coe.decision_log.consumer import Consumer
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.privacy import load_key
from coe.decision_log.sink import DecisionLog
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.providers import vllm
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.parts import Parts
from coe.gateway.routers.live_router import live_router
from coe.gateway.settings import Settings
from coe.router.build import build_encoder
from coe.router.config.composition import load_config
from coe.router.config.log import LogConfig
from tests.gateway.running import MemoryStore
from tests.memory_log import MemoryLog
from tests.training.trained_folder import EXPERTS, make_trained
from tests.waiting import DEADLINE_S

FIGURES = tomllib.loads((Path(__file__).parents[1] / "costs.toml").read_text())
MOST, LEAST = {"bytes": 1.15, "system_calls": 1.25}, {"system_calls": 0.5}
"""Share of its figure at which a count has become too large (1.08 of others), and at which the figure must be lowered
(0.75 of others). Between them lie versions of Python and of libraries, the garbage of what came before in bytes, and in
system calls how many pieces of an answer a busy kernel hands over together."""

WARM_UP, COUNTED = 15, 35
TURNS_AFTER = 4
"""Turns of the event loop that the end of a chat may take after its last byte."""

NUMBERS = itertools.count(1000)
TEXT = "Which river flows through the old town, and how many bridges are there? " * 3
KINDS = {
    "named": {"model": EXPERTS[0]},
    "named_streamed": {"model": EXPERTS[0], "stream": True},
    "static": {"model": "auto"},
    "static_streamed": {"model": "auto", "stream": True},
}
CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
WORDS = [{"choices": [{"index": 0, "delta": {"content": f"word {i} "}, "finish_reason": None}]} for i in range(16)]
EVENTS = [*WORDS, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
STREAM = b"".join(f"data: {json.dumps({**CHUNK, **each})}\n\n".encode() for each in EVENTS) + b"data: [DONE]\n\n"
MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "words " * 16}, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 40, "completion_tokens": 16, "total_tokens": 56}
ANSWER = json.dumps({**CHUNK, "object": "chat.completion", "choices": [MESSAGE], "usage": USAGE}).encode()


def check(kind: str, name: str, found: float) -> None:
    """Fails where a count is above its figure, or so far below that the figure no longer guards it."""
    figure = FIGURES[kind][name]
    where, most, least = f"tests/costs.toml [{kind}] {name}", MOST.get(kind, 1.08), LEAST.get(kind, 0.75)
    assert found <= most * figure, f"{where}: {found:g}, at most {figure} and {most - 1:.0%} more are allowed"
    assert found >= least * figure, f"{where}: {found:g} is far below {figure}: lower the figure"


class Counter:
    """Calls in all threads that start while it counts, and in those that call `start`."""

    def __init__(self) -> None:
        self.calls = 0

    def reset(self) -> None:
        self.calls = 0

    def count(self, frame: FrameType, kind: str, argument: object) -> None:
        self.calls += kind in ("call", "c_call")


class Memory:
    """Bytes that Python holds."""

    def reset(self) -> None:
        tracemalloc.reset_peak()
        self._before = tracemalloc.get_traced_memory()[0]

    def cost(self) -> float:
        """The most that it held since `reset` beside what it held then."""
        return tracemalloc.get_traced_memory()[1] - self._before


@contextmanager
def counting() -> Iterator[Counter]:
    counter = Counter()
    threading.setprofile(counter.count)
    sys.setprofile(counter.count)
    try:
        yield counter
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)


def read_message(connection: socket.socket) -> bytes:
    """A message with a content-length; empty at the end of the connection."""
    found = b""
    while b"\r\n\r\n" not in found or len(found) < found.index(b"\r\n\r\n") + 4 + content_length(found):
        piece = connection.recv(4096)
        if not piece:
            return b""
        found += piece
    return found


def message(start: str, kind: str, body: bytes) -> bytes:
    return f"{start}\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def answer(connection: socket.socket) -> None:
    """An engine on one connection: models are listed, and chats answered in one piece each."""
    with connection:
        while asked := read_message(connection):
            is_stream = b'"stream":true' in asked.replace(b" ", b"")
            body, kind = (STREAM, "text/event-stream") if is_stream else (ANSWER, "application/json")
            connection.sendall(message("HTTP/1.1 200 OK", kind, body))


@contextmanager
def upstream() -> Iterator[str]:
    """URL of an engine whose threads are not counted, because they started before."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            sys.setprofile(None)
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection: socket.socket) -> None:
            sys.setprofile(None)
            answer(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask(connection: socket.socket, kind: str) -> None:
    """One chat with a text of its own, until the end of its answer."""
    body = {"messages": [{"role": "user", "content": f"{next(NUMBERS)} {TEXT}"}], "max_tokens": 32, **KINDS[kind]}
    connection.sendall(message("POST /v1/chat/completions HTTP/1.1", "application/json", json.dumps(body).encode()))
    found = b"" if "stream" in KINDS[kind] else read_message(connection)
    while "stream" in KINDS[kind] and not found.endswith(b"0\r\n\r\n"):
        found += connection.recv(4096)
    assert found.startswith(b"HTTP/1.1 200"), found


def client_of(port: int, work: Callable[[socket.socket], None]) -> Callable[[], None]:
    """Runs a client in a thread of its own, not counted."""

    def run() -> None:
        sys.setprofile(None)
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
            work(connection)

    return run


def settle(loop: asyncio.AbstractEventLoop, turns: int) -> None:
    """Waits for turns of another thread's event loop, which has things to do after an answer, such as its record: on a
    busy machine the client runs before it has. No call of this is counted: the loop runs a function of C."""
    for _ in range(turns):
        has_turned = threading.Lock()
        has_turned.acquire()
        loop.call_soon_threadsafe(has_turned.release)
        assert has_turned.acquire(timeout=DEADLINE_S)


async def costs_of_kind(
    port: int, kind: str, start: Callable[[], None], cost: Callable[[], float], *, turns: int = TURNS_AFTER
) -> list[float]:
    """Costs of many chats. Some meet what the gateway does by the clock, or an answer that came in more pieces."""
    found, loop = list[float](), asyncio.get_running_loop()

    def work(connection: socket.socket) -> None:
        for _ in range(WARM_UP + COUNTED):
            start()
            ask(connection, kind)
            settle(loop, turns)
            found.append(cost())

    await asyncio.to_thread(client_of(port, work))
    return found[WARM_UP:]


async def costs_of_chats(folder: Path, log: MemoryLog) -> dict[str, dict[str, float]]:
    """Serves chats of every kind and counts; their records are in the log afterwards."""
    config = load_config(folder / "experts.yaml")
    settings = Settings(config_path=folder / "experts.yaml", data_dir=folder / "data")
    found = {"calls": dict[str, float](), "bytes": dict[str, float]()}
    with upstream() as url, counting() as counter:
        backends = {name: vllm.build(vllm.Options(url=url, served_model=name)) for name in config.experts}
        live, key = live_router(settings, config), load_key(settings.data_dir)
        gateway = Gateway(Parts(config, ExpertPool(backends), live, log, MemoryStore(), hash_key=key))
        port = await gateway.start()
        try:
            for kind in KINDS:
                found["calls"][kind] = min(await costs_of_kind(port, kind, counter.reset, lambda: counter.calls))
            sys.setprofile(None)
            threading.setprofile(None)
            tracemalloc.start()
            memory = Memory()
            for kind in KINDS:
                found["bytes"][kind] = statistics.median(await costs_of_kind(port, kind, memory.reset, memory.cost))
            tracemalloc.stop()  # it would slow down what is traced next
            found["system_calls"] = await system_calls(port, folder / "trace")
        finally:
            tracemalloc.stop()
            await gateway.stop()
    return found


async def system_calls(port: int, trace: Path) -> dict[str, float]:
    """System calls of this thread, the gateway's event loop, for one chat; nothing where strace cannot count them.
    Those that wait for a lock are left out: the client and the engine run in this process, and the busier the machine,
    the more often they hold Python's."""
    found = dict[str, float]()
    if shutil.which("strace") is None:
        return found
    for kind in KINDS:
        words = ["strace", "-e", "trace=!futex", "-o", str(trace), "-p", str(threading.get_native_id())]
        tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        if "attached" not in await asyncio.to_thread(tracer.stderr.readline):
            tracer.wait()
            return {}
        try:
            await costs_of_kind(port, kind, lambda: None, lambda: 0.0, turns=0)  # a turn is a system call
        finally:
            tracer.send_signal(signal.SIGINT)
            await asyncio.to_thread(tracer.communicate)
        found[kind] = usual_calls(trace.read_text().splitlines())
    return found


def usual_calls(lines: Sequence[str]) -> float:
    """Lines of a trace between the arrivals of two chats, the median. Some have an answer in more or fewer pieces."""
    is_arrival = re.compile(r'(read|recv\w*)\(\d+, "POST ')
    arrivals = [number for number, line in enumerate(lines) if is_arrival.match(line)]
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(arrivals))


async def costs_of_records(records: Sequence[DecisionRecord], folder: Path, redis_url: str) -> dict[str, float]:
    """Brings the records from the log's queue into the stream, and from there into SQL."""
    log = DecisionLog(data_dir=folder / "data", redis_url=redis_url, config=LogConfig())
    with counting() as counter:
        await log.start()
        try:
            for record in records:
                log.append(record.model_copy(update={"replica": log.replica, "seq": log.next_seq()}))
        finally:
            await log.aclose()
    logged = counter.calls / len(records)
    store = Database(f"sqlite:///{folder / 'data' / 'coe.db'}")
    statements = list[str]()
    event.listen(store._engine, "connect", lambda connection, _: connection.set_trace_callback(statements.append))
    store._engine.dispose()  # so that connections are made anew, and traced
    consumer = Consumer(redis_url=redis_url, stream=LogConfig().stream, database=store, name="one")
    try:
        with counting() as counter:
            stats = await consumer.drain()
    finally:
        await consumer.aclose()
        store.close()
    assert stats.written == len(records)
    consumed, sql = counter.calls / len(records), len(statements) / len(records)
    return {"calls_to_the_stream": logged, "calls_to_sql": consumed, "sql_statements": sql}


def calls_of_the_encoder() -> float:
    """Calls by which the encoder that ships reads one query."""
    encoder = build_encoder(load_config(shipped_root() / DEFAULT_CONFIG).router.encoder)
    encoder.encode([TEXT])
    with counting() as counter:
        encoder.encode([f"{TEXT}How many bridges are there?"])
    return counter.calls


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory, valkey) -> dict[str, dict[str, float]]:
    folder = make_trained(tmp_path_factory.mktemp("costs"), encoder="use_static")
    with Redis.from_url(valkey.url) as client:
        client.flushall()

    async def measure() -> dict[str, dict[str, float]]:
        log = MemoryLog()
        found = await costs_of_chats(folder, log)
        return {**found, "record": await costs_of_records(log.records, folder, valkey.url)}

    return {**uvloop.run(measure()), "encoder": {"shipped": calls_of_the_encoder()}}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in FIGURES.items() for name in names])
def test_costs_stay_at_their_figures(costs: dict[str, dict[str, float]], kind: str, name: str) -> None:
    if kind == "system_calls" and not costs[kind]:
        pytest.skip("strace is not installed, or may not look at processes here")
    check(kind, name, costs[kind][name])
