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
    start(plan, worker_name(number), parent, partial(worker, number=number, listener=listener))


def serve_log(plan: PlanArgument, parent: int) -> None:
    """Keep the decision log of all workers (`coe serve` starts this)."""
    start(plan, LOG, parent, keep_log)


def start(path: Path, name: str, parent: int, work: Callable[..., Coroutine[None, None, None]]) -> None:
    """Runs `work` as the process of that name."""
    settings = environment_settings()
    log_to_stderr(settings.log_level, settings.log_format, name)
    plan = Plan.model_validate_json(path.read_bytes())
    plugins.declare(plan.config.plugins)

    async def program(life: Life) -> None:
        async with AsyncExitStack() as stack:
            await work(stack, Post(settings, plan, path.parent, parent, life))

    run(live_until_signal(program))


@dataclass(frozen=True)
class Post:
    """The place of a process among the others: their plan and folder, and the process id of their parent."""

    settings: Settings
    plan: Plan
    folder: Path
    parent: int
    life: Life


async def worker(stack: AsyncExitStack, post: Post, number: int, listener: int) -> None:
    """Serves until a signal, and drains."""
    settings, plan, folder, life = post.settings, post.plan, post.folder, post.life
    name = worker_name(number)
    share = partial(share_of, workers=plan.workers, number=number)
    config = share(plan.config)
    redis_url, _ = await start_redis(stack, settings)
    database = await open_database(stack, settings)
    sink = await start_log(stack, settings, config, redis_url, database)
    processes = Processes(folder, name, plan.names)
    membership = Membership(socket.socket(fileno=listener), processes, share, runs_batches=number == 0)
    live_config = LiveConfig(settings, plan.config, plan.found, AdminLog(database).note)
    gateway = await start_gateway(stack, settings, live_config, plan.engines, sink, database, redis_url, membership)
    await stack.enter_async_context(telling(socket_of(folder, name), gateway.parts.metrics.text))
    spare_what_is_there()
    life.is_starting = False
    ready_file(folder, name).touch(mode=0o600)
    await life.stop.wait()
    if os.getppid() != post.parent:  # it died: no one restarts workers then, and a new gateway may want the port
        life.stop.urgent.set()
    await gateway.drain(life.stop.urgent)


async def keep_log(stack: AsyncExitStack, post: Post) -> None:
    """Keeps the log until a signal, and writes what is in the stream then."""
    settings, plan, folder, life = post.settings, post.plan, post.folder, post.life
    redis_url, _ = await start_redis(stack, settings)
    database = await open_database(stack, settings)
    metrics = await start_keeper(stack, settings, plan.config.log, redis_url, database)
    registry = CollectorRegistry()
    registry.register(ReadCollector(metrics))
    await stack.enter_async_context(telling(socket_of(folder, LOG), partial(generate_latest, registry)))
    life.is_starting = False
    ready_file(folder, LOG).touch(mode=0o600)
    await life.stop.wait()


def share_of(config: CoeConfig, workers: int, number: int) -> CoeConfig:
    """experts.yaml for one of several workers: limits of a gateway are divided among them, to the last one.

    Raises:
        ConfigError: an expert may have fewer requests at once than there are workers.
    """
    check_places(config, workers)

    def part(value: int) -> int:
        return value // workers + (number < value % workers)

    limits, log, judge = config.gateway, config.log, config.judge
    parts = {
        name: part(getattr(limits, name)) for name in ("max_concurrency", "max_connections", "max_bytes_in_flight")
    }
    parts["max_bodies_per_client"] = max(1, part(limits.max_bodies_per_client))
    changes: dict[str, object] = {
        "experts": {
            name: entry
            if entry.max_concurrency is None
            else entry.model_copy(update={"max_concurrency": part(entry.max_concurrency)})
            for name, entry in config.experts.items()
        },
        "gateway": limits.model_copy(update=parts),
        "log": log.model_copy(update={"queue_max_records": max(1, part(log.queue_max_records))}),
    }
    if judge is not None:
        budget = {
            "max_per_hour": part(judge.max_per_hour),
            "max_usd_per_day": judge.max_usd_per_day / workers,
            "max_running_beside": part(judge.max_running_beside),
        }
        changes["judge"] = judge.model_copy(update=budget)
    if (residency := config.residency) is not None:
        changes["residency"] = residency.model_copy(update={"max_waiting": part(residency.max_waiting)})
    return config.model_copy(update=changes)
