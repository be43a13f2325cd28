"""Running the gateway: the socket, the server, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import math
import resource
import socket
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from prometheus_client.core import CounterMetricFamily, Metric

from coe.fleet.processes.tasks import happens, stop_task
from coe.gateway.app import CurrentApp, GatewayApp
from coe.gateway.http.auth import readable_by
from coe.gateway.http.listener import bind, check_exposure, url_of
from coe.gateway.http.protocol import FullNotice, LimitedProtocol
from coe.gateway.metrics import (
    admission_metrics,
    certificate_metrics,
    expert_metrics,
    log_metrics,
    residency_metrics,
    router_metrics,
)

if TYPE_CHECKING:
    from coe.gateway.parts import Parts

FILES_BESIDE = 512  # database, log, indexes, engines, uploads
FILES_PER_CLIENT = 2  # its connection, and one to an expert
FEWEST_CLIENTS = 16

logger = logging.getLogger(__name__)


class Gateway:
    """A gateway on a port. `start` returns when it accepts connections; `stop` when everything has ended.

    It owns `parts` (experts and router) from `start` on; the sink and the database belong to whoever made them.
    `change` puts others in their place.

    Args:
        port: 0 until `start` when any free port will do.
    """

    def __init__(self, parts: Parts, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self.current = CurrentApp(GatewayApp(parts, host))
        self._before: dict[GatewayApp, asyncio.Task[None]] = {}  # what still has requests, and waits for their end
        self._listener: socket.socket | None = None
        self._server: QuietServer | None = None

    @property
    def parts(self) -> Parts:
        """The parts in force."""
        return self.current.app.parts

    @property
    def url(self) -> str:
        """The API root for OpenAI clients."""
        return url_of(self.host, self.port)

    def change(self, parts: Parts) -> None:
        """Serves what comes from now on with other parts, which `Parts.changed` made and which have started.

        Requests that run keep theirs, which are closed behind the last of them.
        """
        before, self.current.app = self.current.app, GatewayApp(parts, self.host)
        parts.is_stopping = before.parts.is_stopping
        if parts.residency is not None:
            parts.residency.use(parts.pool)
        if parts.judge is not None:
            parts.judge.use(parts.config.experts, parts.pool)
        before.end()
        self._before[before] = asyncio.create_task(self._close(before), name="parts-before")

    async def _close(self, app: GatewayApp) -> None:
        await asyncio.gather(app.parts.pool.stop_probing(), app.parts.live.aclose())  # the new ones follow
        await app.is_over.wait()
        del self._before[app]
        others = [self.current.app, *self._before]
        await app.parts.close_changed([each for other in others for each in other.parts.pool.backends])

    async def start(self) -> int:
        """Binds, loads, probes and accepts. Returns the port.

        Raises:
            ConfigError: the address cannot be bound, or others can reach it and nobody needs a key.
        """
        listener = self._listener = bind(self.host, self.port)
        self.port = int(listener.getsockname()[1])
        await self.parts.start()
        check_exposure(self.host, has_keys=self.parts.auth.needs_key)
        self.parts.metrics.watch(lambda: part_metrics(self.parts))
        self._server = QuietServer(server_config(self), self.parts.config.gateway.shutdown_grace_s)
        await self._server.begin([listener])
        for lacking in self.parts.missing():
            logger.warning("not ready: %s", lacking)
        return self.port

    async def drain(self, urgent: asyncio.Event) -> None:
        """Not ready, and serving for `drain_s` more, so that whoever sends requests here can turn to another gateway.

        Every answer is the last of its connection. `urgent` cuts it short.
        """
        limits = self.parts.config.gateway
        self.parts.is_stopping = True
        logger.info("stopping: not ready, and serving for %g s more", limits.drain_s)
        await happens(urgent, limits.drain_s)
        logger.info("stopping: requests have %g s to end", limits.shutdown_grace_s)

    async def stop(self) -> None:
        """Not ready, then no new connections, then what runs has `shutdown_grace_s` to end. All has ended, with its row
        in the sink, before the parts close.

        A connection that was accepted just before, or a request that waits behind another on its connection, may still
        begin one: it is refused, because the server no longer waits for it.
        """
        self.current.is_closed = True
        for app in (self.current.app, *self._before):  # each tells its own requests why they are cut off
            app.parts.is_stopping = True
        if self._server is not None:
            await self._server.end()
        if self._listener is not None:
            self._listener.close()
        self.current.app.end()
        await asyncio.gather(self.current.app.is_over.wait(), *self._before.values())
        await self.parts.aclose()


class QuietServer(uvicorn.Server):
    """uvicorn's server without its signal handlers and polling: it serves from `begin` to `end`."""

    def __init__(self, config: uvicorn.Config, grace_s: float) -> None:
        super().__init__(config)
        # Its error logger writes tracebacks, which may hold prompt text; faults are counted and logged at the edge.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.servers = []
        self._grace_s = grace_s
        self._ticking: asyncio.Task[None] | None = None

    async def begin(self, sockets: list[socket.socket] | None = None) -> None:
        """Returns when it accepts connections."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets)
        self._ticking = asyncio.create_task(self._tick(), name="server-date")

    async def _tick(self) -> None:
        while True:
            await self.on_tick(0)  # renews the Date header
            await asyncio.sleep(1.0)

    async def end(self) -> None:
        """No new connections, idle ones closed; requests that run get the grace, then each writes its record. Returns
        at once when nothing runs."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        running = self.server_state.tasks
        try:
            async with asyncio.timeout(self._grace_s):
                await asyncio.gather(*(asyncio.shield(task) for task in running), return_exceptions=True)
        except TimeoutError:
            for task in running:
                task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await stop_task(self._ticking)


def part_metrics(parts: Parts) -> Iterator[Metric]:
    """Metrics of every part that this process has."""
    yield from log_metrics(parts.sink)
    yield from admission_metrics(parts.concurrency, parts.body_limits)
    yield from router_metrics(parts.live)
    yield from certificate_metrics(parts.standing())
    yield from expert_metrics(parts.pool)
    if (judge := parts.judge) is not None:
        yield CounterMetricFamily("coe_judged", "Answers that a judge graded", value=judge.judged)
        yield CounterMetricFamily("coe_judge_left_out", "Sampled answers that it did not", value=judge.left_out)
    if parts.residency is not None:
        yield from residency_metrics(parts.residency)
    if parts.retrieval is not None and (pilots := parts.retrieval.pilots) is not None:
        yield CounterMetricFamily("coe_pilots_loads", "Pilot libraries taken over", value=pilots.loads)
        yield CounterMetricFamily("coe_pilots_refusals", "Pilot libraries refused", value=pilots.refusals)


def server_config(gateway: Gateway) -> uvicorn.Config:
    limits = gateway.parts.config.gateway
    max_connections = clients_that_fit(limits.max_connections)
    protocol: Any = partial(  # uvicorn calls it for each connection
        LimitedProtocol,
        max_connections=max_connections,
        is_stopping=gateway.current.is_stopping,
        on_full=FullNotice(max_connections, gateway.parts.metrics.full.inc),
    )
    return uvicorn.Config(
        readable_by(gateway.current, limits.allowed_origins),
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=math.ceil(limits.keep_alive_s),
    )


def clients_that_fit(wanted: int) -> int:
    """The number of clients, at most `wanted`, that may be connected at once.

    Raises this process's limit on open files as far as the system lets it.

    One connection more than there may be files would keep experts and the database from being reached.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_PER_CLIENT * wanted + FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    fitting = max(FEWEST_CLIENTS, (soft - FILES_BESIDE) // FILES_PER_CLIENT)
    logger.warning(
        "at most %d connections instead of gateway.max_connections %d: this process may have %d files open (ulimit -n)",
        fitting,
        wanted,
        soft,
    )
    return fitting
