"""The processes that `coe serve --workers N` starts: a worker, which answers requests, and the one that keeps the log.

gateway/workers.py is their parent. What they share comes from it in a file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry, generate_latest
from uvloop import run

from coe.decision_log.admin_log import AdminLog
from coe.decision_log.database import Database
from coe.fleet.program_log import log_to_stderr
from coe.fleet.stop_signal import Life, live_until_signal
from coe.gateway.changes.live_config import LiveConfig
from coe.gateway.composition import (
    Membership,
    open_database,
    spare_what_is_there,
    start_gateway,
    start_keeper,
    start_log,
)
from coe.gateway.metrics import Processes, ReadCollector, socket_of, telling
from coe.gateway.services import start_redis
from coe.gateway.settings import Settings, environment_settings
from coe.gateway.workers import LOG, Plan, check_places, ready_file, worker_name
from coe.router import plugins
from coe.router.config import CoeConfig

PlanArgument = Annotated[Path, typer.Argument()]


def serve_worker(plan: PlanArgument, number: int, listener: int, parent: int) -> None:
    """Answer requests alongside other workers (`coe serve` starts this)."""
    start(plan, worker_name(number), partial(worker, number=number, listener=listener, parent=parent))


def serve_log(plan: PlanArgument, parent: int) -> None:
    """Keep the decision log of all workers (`coe serve` starts this)."""
    start(plan, LOG, keep_log)


@dataclass(frozen=True)
class Post:
    """A process among the others, with what each of them opens."""

    settings: Settings
    plan: Plan
    folder: Path
    name: str
    stack: AsyncExitStack
    redis_url: str
    database: Database
    life: Life

    async def serve(self, metrics: Callable[[], bytes]) -> None:
        """Tells its metrics, and that it is ready; returns at a signal."""
        await self.stack.enter_async_context(telling(socket_of(self.folder, self.name), metrics))
        self.life.is_starting = False
        ready_file(self.folder, self.name).touch(mode=0o600)
        await self.life.stop.wait()


def start(path: Path, name: str, work: Callable[[Post], Coroutine[None, None, None]]) -> None:
    """Runs `work` as the process of that name."""
    settings = environment_settings()
    log_to_stderr(settings.log_level, settings.log_format, name)
    plan = Plan.model_validate_json(path.read_bytes())
    plugins.declare(plan.config.plugins)

    async def program(life: Life) -> None:
        async with AsyncExitStack() as stack:
            redis_url, _ = await start_redis(stack, settings)
            database = await open_database(stack, settings)
            await work(Post(settings, plan, path.parent, name, stack, redis_url, database, life))

    run(live_until_signal(program))


async def worker(post: Post, number: int, listener: int, parent: int) -> None:
    """Serves until a signal, and drains."""
    settings, plan, stack, urgent = post.settings, post.plan, post.stack, post.life.stop.urgent
    share = partial(share_of, workers=plan.workers, number=number)
    sink = await start_log(stack, settings, share(plan.config), post.redis_url)
    processes = Processes(post.folder, post.name, plan.names)
    membership = Membership(socket.socket(fileno=listener), processes, share, runs_batches=number == 0)
    live_config = LiveConfig(settings, plan.config, plan.found, AdminLog(post.database).note)
    gateway = await start_gateway(
        stack, settings, live_config, plan.engines, sink, post.database, post.redis_url, membership
    )
    spare_what_is_there()
    await post.serve(gateway.parts.metrics.text)
    if os.getppid() != parent:  # it died: no one restarts workers then, and a new gateway may want the port
        urgent.set()
    await gateway.drain(urgent)


async def keep_log(post: Post) -> None:
    """Keeps the log until a signal, and writes what is in the stream then."""
    registry = CollectorRegistry()
    metrics = await start_keeper(post.stack, post.settings, post.plan.config.log, post.redis_url, post.database)
    registry.register(ReadCollector(metrics))
    await post.serve(partial(generate_latest, registry))


def share_of(config: CoeConfig, workers: int, number: int) -> CoeConfig:
    """experts.yaml for one of several workers: limits of a gateway are divided among them, to the last one.

    Raises:
        ConfigError: an expert may have fewer requests at once than there are workers.
    """
    check_places(config, workers)

    def part(value: int) -> int:
        return value // workers + (number < value % workers)

    limits, judge = config.gateway, config.judge
    parts = {
        name: part(getattr(limits, name)) for name in ("max_concurrency", "max_connections", "max_bytes_in_flight")
    }
    changes: dict[str, object] = {
        "experts": {
            name: entry
            if entry.max_concurrency is None
            else entry.model_copy(update={"max_concurrency": part(entry.max_concurrency)})
            for name, entry in config.experts.items()
        },
        "gateway": limits.model_copy(update=parts),
    }
    if judge is not None:
        changes["judge"] = judge.model_copy(update={"max_usd_per_day": judge.max_usd_per_day / workers})
    return config.model_copy(update=changes)
