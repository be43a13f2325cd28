"""Everything that `coe up` and `coe serve` run, started in order and ended in the opposite one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from decision_log.consumer import Consumer
from decision_log.database import Database
from decision_log.housekeeping import Housekeeper
from decision_log.reward_pages import RewardPages
from decision_log.router_versions import RouterVersions
from decision_log.sink import DecisionLog
from fleet.connect import build_backends
from fleet.engines import EngineAddresses, Fleet
from fleet.redis_server import RedisServer
from fleet.vllm_addresses import read_vllm_addresses
from gateway.drift_watch import DriftWatch
from gateway.part_metrics import drift_metrics, trial_metrics
from gateway.serve import Gateway, build_parts
from gateway.settings import Settings, engine_environment, environment_secrets
from gateway.trial_watch import TrialWatch
from retrieval.service import retrieval_of
from router.config import CoeConfig, Engine

NEW_OBJECTS = 10_000
"""Lists, dicts and other containers made, less those that ended, before the youngest are searched; Python's is 700. A
large body alone makes thousands, which end with it."""


class StepReport(Protocol):
    """Takes the outcome of a step."""

    def done(self, outcome: str) -> None: ...


class Reporter(Protocol):
    """Shows the steps of a start."""

    def step(self, title: str) -> AbstractContextManager[StepReport]: ...


@dataclass(frozen=True)
class Composition:
    """The gateway and the engines that run."""

    gateway: Gateway
    fleet: Fleet


@asynccontextmanager
async def running_composition(
    settings: Settings, config: CoeConfig, reporter: Reporter, engines: Collection[Engine]
) -> AsyncIterator[Composition]:
    """Services, engines of the given kinds, gateway. At the end: requests, engines, log, database, Redis.

    Raises:
        ConfigError: the address is taken, or a setting or entry is wrong.
        MissingWeightsError, ArtifactError, EngineError: an engine cannot start.
        StoreError: the database or the spool cannot be opened.
    """
    async with AsyncExitStack() as stack:
        with reporter.step("starting Redis and the decision log") as step:
            sink, store, where = await start_log(stack, settings, config)
            step.done(where)
        running = await asyncio.to_thread(read_vllm_addresses, settings.data_dir)
        folder = settings.config_path.resolve().parent
        fleet = Fleet(config, folder, settings.data_dir, engine_environment(config), engines, running)
        with reporter.step(f"loading {len(config.experts)} experts") as step:
            stack.push_async_callback(fleet.stop)
            addresses = await fleet.start()
            step.done(experts_line(config, fleet))
        with reporter.step("starting the gateway") as step:
            gateway = await start_gateway(stack, settings, config, addresses, sink, store)
            spare_what_is_there()
            step.done(f"gateway at {gateway.url}")
        yield Composition(gateway, fleet)


async def start_log(stack: AsyncExitStack, settings: Settings, config: CoeConfig) -> tuple[DecisionLog, Database, str]:
    """The decision log with its Redis and its database, and a line that says which they are."""
    redis_url = None if settings.redis_url is None else settings.redis_url.get_secret_value()
    where = "Redis at REDIS_URL"
    if redis_url is None:
        server = RedisServer(settings.data_dir / "redis")
        redis_url = await server.start()
        stack.push_async_callback(server.stop)
        where = f"embedded Valkey in {settings.data_dir / 'redis'}"
    store = await asyncio.to_thread(Database, settings.database_url.get_secret_value())
    stack.callback(store.close)
    sink = DecisionLog(data_dir=settings.data_dir, redis_url=redis_url, config=config.log)
    consumer = Consumer(redis_url=redis_url, stream=config.log.stream, database=store, name=sink.replica)
    await consumer.start()
    stack.push_async_callback(consumer.aclose)
    await sink.start()
    stack.push_async_callback(sink.aclose)
    housekeeper = Housekeeper(store, sink, keep_days=config.log.keep_days)
    await housekeeper.start()
    stack.push_async_callback(housekeeper.aclose)
    return sink, store, f"decision log through {where}"


async def start_gateway(
    stack: AsyncExitStack,
    settings: Settings,
    config: CoeConfig,
    addresses: EngineAddresses,
    sink: DecisionLog,
    store: Database,
) -> Gateway:
    secrets = environment_secrets(config)
    backends = build_backends(config, addresses.urls, addresses.lora_ids, secrets)
    database_url, folder = settings.database_url.get_secret_value(), settings.config_path.resolve().parent
    retrieval = await asyncio.to_thread(
        retrieval_of, config.retrieval, folder, settings.data_dir, store, database_url, secrets
    )
    parts = build_parts(
        settings, config, backends=backends, sink=sink, store=store, retrieval=retrieval, secrets=secrets
    )
    gateway = Gateway(parts, host=settings.host, port=settings.port)
    stack.push_async_callback(gateway.stop)
    await gateway.start()
    trials, drift = TrialWatch(parts.live, RouterVersions(store)), DriftWatch(RewardPages(store))
    parts.metrics.watch(lambda: trial_metrics(trials))
    parts.metrics.watch(lambda: drift_metrics(drift))
    for watch in (trials, drift):
        await watch.start()
        stack.push_async_callback(watch.aclose)
    return gateway


def experts_line(config: CoeConfig, fleet: Fleet) -> str:
    """A line with the number of experts, and the engines of this host that serve them."""
    hosted = {name for _, experts in fleet.statuses for name in experts}
    parts = [f"{len(experts)} on {status.name}" for status, experts in fleet.statuses]
    if others := len(config.experts.keys() - hosted):
        parts.append(f"{others} elsewhere")
    return f"{len(config.experts)} experts answer: {', '.join(parts)}"


def spare_what_is_there() -> None:
    """Takes everything made so far out of the garbage collector's search, because it lives as long as the process.

    Searching the 150,000 objects of a gateway stops all requests for some 90 ms, whenever requests have made enough new
    ones; a large body did so by itself. What is made from now on is collected as ever.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
