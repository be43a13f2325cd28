"""Prometheus metrics in a registry of their own. Every label has a bounded set of values: names of experts.yaml,
states, reasons, HTTP statuses.

A scrape meets one worker, and metrics are of all: each process tells its own at a Unix socket in a folder that only its
user may open. Samples are not added up: who reads them does, and sees that a process began again at 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from coe.gateway.http_errors import ApiError, FaultError

SCRAPER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coe-metrics")
"""A thread of its own: while a database hangs, those of `asyncio.to_thread` all wait for it."""


PATIENCE_S = 2.0
SIZE_BYTES = 8
RETRIEVAL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of the request path, and a way to add what other parts count themselves."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series of each counter: when it was made
        registry = self.registry = CollectorRegistry()
        counter = partial(Counter, registry=registry)
        self.refusals = counter("coe_refusals", "Requests refused before routing, by status", ["status"])
        self.faults = counter("coe_faults", "Unforeseen errors, at the request edge")
        self.full = counter("coe_connections_over_limit", "Connections closed or refused for gateway.max_connections")
        self.failovers = counter("coe_failovers", "Answers by another expert than the one decided", ["expert"])
        about_changes = "Answers that name another model than the expert's answers before"
        self.model_changes = counter("coe_served_model_changes", about_changes, ["expert"])
        self.feedback = counter("coe_feedback", "Feedback by what became of it", ["kind", "status"])
        choices = "Choices of a retrieval expert"
        self.retrieval_decisions = counter("coe_retrieval_decisions", choices, ["expert", "reason"])
        about_time, buckets = "From a request's arrival to its answer", RETRIEVAL_SECONDS
        self.retrieval_seconds = Histogram(
            "coe_retrieval_seconds", about_time, ["kind"], buckets=buckets, registry=registry
        )

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Adds metrics that are read at each scrape."""
        self.registry.register(ReadCollector(read))

    def failed(self, error: ApiError) -> None:
        """Counts an error that a client gets, if it was unforeseen."""
        if isinstance(error, FaultError):
            self.faults.inc()

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)


class ReadCollector(Collector):
    """Metrics that a function gives."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()


@dataclass(frozen=True)
class Processes:
    """The processes of this gateway, and which of them this one is; no names where a gateway is one process."""

    folder: Path = Path()
    name: str = ""
    names: Sequence[str] = ()

    async def metrics(self, own: bytes) -> bytes:
        """The metrics of all processes, each sample with its process as a label; `own` where it is alone."""
        if not self.names:
            return own
        others = [name for name in self.names if name != self.name]
        found = await asyncio.gather(*(told_at(socket_of(self.folder, other)) for other in others))
        texts = {self.name: own} | dict(zip(others, found, strict=True))
        up = "".join(f'coe_process_up{{process="{name}"}} {int(text is not None)}\n' for name, text in texts.items())
        head = "# HELP coe_process_up 1 while a process of this gateway answers\n# TYPE coe_process_up gauge\n"
        return (head + up).encode() + merged({name: text for name, text in texts.items() if text is not None})


def socket_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.sock"


@asynccontextmanager
async def telling(path: Path, metrics: Callable[[], bytes]) -> AsyncIterator[None]:
    """Sends the metrics to whoever connects to that socket, after their size, so that a cut answer is noticed."""

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # who asked has left
            text = await asyncio.get_running_loop().run_in_executor(SCRAPER, metrics)
            writer.write(len(text).to_bytes(SIZE_BYTES) + text)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(tell, path)
    try:
        yield
    finally:
        server.close()


async def told_at(path: Path) -> bytes | None:
    """The metrics of another process; None where it does not run: it is being started again."""
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return await reader.readexactly(int.from_bytes(await reader.readexactly(SIZE_BYTES)))
            finally:
                writer.close()
    return None


def merged(texts: Mapping[str, bytes]) -> bytes:
    """One exposition of several, by process: each family once, each sample with the label `process`."""
    families: dict[bytes, list[bytes]] = {}
    for process, text in texts.items():
        label = f'process="{process}"'.encode()
        for block in (b"\n" + text).split(b"\n# HELP ")[1:]:  # in a label a line break is escaped
            lines = [line + b"\n" for line in block.rstrip(b"\n").split(b"\n")]  # help, type, samples
            family = families.setdefault(lines[0].split(b" ", 1)[0], [b"# HELP " + lines[0], lines[1]])
            family += [labelled(line, label) for line in lines[2:]]
    return b"".join(line for family in families.values() for line in family)


def labelled(sample: bytes, label: bytes) -> bytes:
    """A sample with one more label."""
    name, brace, rest = sample.partition(b"{")
    if brace:
        return b"%b{%b,%b" % (name, label, rest)
    name, _, value = sample.partition(b" ")
    return b"%b{%b} %b" % (name, label, value)
