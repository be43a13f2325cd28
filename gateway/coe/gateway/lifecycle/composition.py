"""Everything that `coe up` and `coe serve` run, started in order and ended in the opposite one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import Metric

from coe.base.extras import require_installed
from coe.base.period import parse_period
from coe.decision_log.consumer import Consumer
from coe.decision_log.database import Database
from coe.decision_log.housekeeping import Housekeeper
from coe.decision_log.privacy import load_key
from coe.decision_log.router_versions import RouterVersions
from coe.decision_log.sink import DecisionLog, new_replica
from coe.fleet.calls.connect import build_backends
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.hosts.engines import EngineAddresses, Fleet
from coe.fleet.hosts.vllm_host import hosted_vllm
from coe.fleet.learning import Learning
from coe.fleet.processes.own_redis import redis_plugin
from coe.fleet.processes.tasks import Poller
from coe.fleet.router_registry import Registry
from coe.fleet.vllm.addresses import read_vllm
from coe.fleet.vllm.command import managed_experts
from coe.gateway.batches.batch_store import BatchStore
from coe.gateway.batches.runner import Asker, BatchRunner, Places
from coe.gateway.changes.in_force import InForce
from coe.gateway.changes.live_config import LiveConfig
from coe.gateway.http.auth import Auth
from coe.gateway.keys.key_ring import KeyRing
from coe.gateway.keys.key_store import KeyStore
from coe.gateway.keys.oidc import Oidc
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.lifecycle.swap import Swap
from coe.gateway.metrics import learning_metrics, trial_metrics
from coe.gateway.parts import Parts
from coe.gateway.routers.live_router import live_router
from coe.gateway.routers.trial_watch import TrialWatch
from coe.gateway.settings import OFF, Settings, engine_environment, expert_keys, on_folder, read_secrets
from coe.gateway.telemetry.telemetry import Telemetry
from coe.retrieval.stores.files import Files
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import Engine
from coe.router.config.log import LogConfig
from coe.router.live_pointer import ROUTERS_FOLDER

if TYPE_CHECKING:
    from coe.fleet.residency.controller import Controller
    from coe.retrieval.service import RetrievalService

INCOMING = "incoming"
"""Folder of uploads while they arrive."""

NEW_OBJECTS = 20_000
"""Lists, dicts and other containers made, less those that ended, before the youngest are searched; Python's is 700. A
large body makes thousands, and a batch of the log on its way to SQL ten thousand, which end with it: a search among
them finds nothing, and stops all requests for some milliseconds."""

BATCH_SHARE = 64
"""Lines of batches begin while fewer requests run than this part of `max_concurrency`."""


class Reporter(Protocol):
    """Shows the steps of a start. Inside one, what it gives takes the outcome."""

    def step(self, title: str) -> AbstractContextManager[Callable[[str], None]]: ...


@asynccontextmanager
async def running_composition(
    settings: Settings, config: CoeConfig, reporter: Reporter, found: InForce | None = None, *, runs_vllm: bool = False
) -> AsyncIterator[Gateway]:
    """Services, engines, gateway. At the end: requests, engines, log, database, Redis.

    Args:
        runs_vllm: start vLLM's engines too, where no `coe experts up` does.
        found: the state in `<data>/config/live.json` that `config` was read from.

    Raises:
        ConfigError: the address is taken, or a setting or entry is wrong.
        MissingWeightsError, ArtifactError, EngineError: an engine cannot start.
        StoreError: the database or the spool cannot be opened.
    """
    async with AsyncExitStack() as stack:
        with reporter.step("starting Redis and the decision log") as done:
            redis_url, where = await start_redis(stack, settings)
            database = await open_database(stack, settings)
            keeper_metrics = await start_keeper(stack, settings, config.log, redis_url, database)
            sink = await start_log(stack, settings, config, redis_url)
            done(f"decision log through {where}")
        with reporter.step(f"loading {len(config.experts)} experts and the router") as done:
            fleet = await engines_of(stack, settings, config, runs_vllm=runs_vllm)
            live_config = LiveConfig(settings, config, found)
            gateway = await start_gateway(stack, settings, live_config, fleet.start, sink, database, redis_url)
            gateway.parts.metrics.watch(keeper_metrics)
            spare_what_is_there()
            done(f"{experts_line(settings, config, fleet)}; gateway at {gateway.url}")
        yield gateway


async def start_redis(stack: AsyncExitStack, settings: Settings) -> tuple[str, str]:
    """The URL of Redis, and words for it. Without REDIS_URL a plugin's, over a data folder that one gateway may have.

    Raises:
        EngineError: it cannot be started, or another gateway has the folder.
    """
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value(), "Redis at REDIS_URL"
    server = redis_plugin().RedisServer(settings.data_dir / "redis")
    url = await server.start()
    stack.push_async_callback(server.stop)
    return url, f"embedded Redis in {settings.data_dir / 'redis'}"


async def engines_of(stack: AsyncExitStack, settings: Settings, config: CoeConfig, *, runs_vllm: bool = False) -> Fleet:
    """The embedded engines, not started yet, with the addresses of vLLM's. With `runs_vllm` those are started, unless
    a `coe experts up` runs on the data folder.

    Raises:
        ConfigError, EngineError: an engine of vLLM does not start, or a `coe experts up` is only now starting them.
        DataError: the file of the engines is damaged.
    """
    record = await asyncio.to_thread(read_vllm, settings.data_dir)
    folder, environment = settings.config_path.resolve().parent, engine_environment(config)
    if runs_vllm and managed_experts(config) and not record.engines:
        host = await stack.enter_async_context(hosted_vllm(config, folder, settings.data_dir.resolve(), environment))
        await host.starting
        record = await asyncio.to_thread(read_vllm, settings.data_dir)
    fleet = Fleet(config, folder, settings.data_dir, environment, (Engine.LLAMACPP,), record.urls)
    stack.push_async_callback(fleet.stop)
    return fleet


def experts_line(settings: Settings, config: CoeConfig, fleet: Fleet) -> str:
    """A line with the number of experts, and the engines of this host that serve them."""
    engines = [(status.name, experts) for status, experts in fleet.statuses]
    engines += [(engine.name, engine.experts) for engine in read_vllm(settings.data_dir).engines]
    hosted = {name for _, experts in engines for name in experts}
    parts = [f"{len(experts)} on {name}" for name, experts in engines]
    if others := len(config.experts.keys() - hosted):
        parts.append(f"{others} elsewhere")
    return f"{len(config.experts)} experts: {', '.join(parts)}"


async def open_database(stack: AsyncExitStack, settings: Settings) -> Database:
    database = await asyncio.to_thread(Database, settings.database_url.get_secret_value())
    stack.callback(database.close)
    return database


async def start_keeper(
    stack: AsyncExitStack, settings: Settings, config: LogConfig, redis_url: str, database: Database
) -> Callable[[], Iterator[Metric]]:
    """Starts the work beside requests: stream to SQL, retention, trials, learning. It
    starts before the first request, and ends after the last record, when what is in the stream is written.
    Redis and SQL may be away. Gives its metrics.

    Raises:
        ConfigError: `redis_url` is not a Redis URL.
    """
    consumer = Consumer(redis_url=redis_url, stream=config.stream, database=database, name=new_replica())
    trials = TrialWatch(settings.data_dir / ROUTERS_FOLDER, RouterVersions(database))
    learning = learning_of(settings)
    parts: list[Consumer | Poller | Learning] = [consumer, trials, *([learning] if learning else [])]
    if config.keep_days is not None:
        parts.append(Housekeeper(database, config.keep_days))
    for part in parts:
        stack.push_async_callback(part.aclose)
        await part.start()
    routers = Registry(settings.data_dir / ROUTERS_FOLDER)
    return lambda: chain(trial_metrics(trials), learning_metrics(learning, routers))


def learning_of(settings: Settings) -> Learning | None:
    """Rounds of `coe retrain`; None where they are off."""
    if settings.learn_every == OFF:
        return None
    words = [*on_folder("retrain", settings), "--every", settings.learn_every, "--once"]
    period_s = parse_period("COE_LEARN_EVERY", settings.learn_every)
    return Learning(settings.data_dir / ROUTERS_FOLDER, words, period_s)


async def start_log(stack: AsyncExitStack, settings: Settings, config: CoeConfig, redis_url: str) -> DecisionLog:
    """The decision log of one process."""
    sink = DecisionLog(data_dir=settings.data_dir, redis_url=redis_url, config=config.log)
    await sink.start()
    stack.push_async_callback(sink.aclose)
    return sink


async def start_gateway(
    stack: AsyncExitStack,
    settings: Settings,
    live_config: LiveConfig,
    start_engines: Callable[[], Awaitable[EngineAddresses]],
    sink: DecisionLog,
    database: Database,
    redis_url: str,
) -> Gateway:
    """The gateway on its address, whose engines load while it does."""
    telemetry = telemetry_of(settings, sink.replica)
    if telemetry is not None:
        stack.push_async_callback(telemetry.aclose)
    config = live_config.started
    secrets = read_secrets(config)
    batches = await asyncio.to_thread(lambda: BatchStore(Files(database, settings.data_dir / INCOMING)))
    opening = opened_retrieval(settings, config, batches.files, secrets)
    live = live_router(settings, config)
    addresses, retrieval, _ = await asyncio.gather(start_engines(), opening, live.refresh())
    parts = Parts(
        config,
        ExpertPool(build_backends(config, addresses.urls, addresses.lora_ids, secrets)),
        live,
        sink,
        database,
        auth=await auth_of(settings, config, database),
        hash_key=load_key(settings.data_dir),
        expert_keys=expert_keys(config, secrets),
        retrieval=retrieval,
        batches=batches,
        redis_url=redis_url,
        shares_redis=settings.redis_url is not None,
        live_config=live_config,
        telemetry=telemetry,
        residency=await opened_controller(settings, config, addresses.urls),
    )
    gateway = Gateway(parts, host=settings.host, port=settings.port)
    swap = Swap(gateway, settings.data_dir, config, addresses, settings.config_path.resolve().parent)
    stack.push_async_callback(swap.aclose)
    stack.push_async_callback(gateway.stop)
    await gateway.start()
    await live_config.follow(swap)
    stack.push_async_callback(live_config.aclose)
    runner = make_runner(gateway, batches, sink.replica)
    stack.push_async_callback(runner.aclose)
    await runner.start()
    return gateway


async def opened_retrieval(
    settings: Settings, config: CoeConfig, files: Files, secrets: Mapping[str, str]
) -> RetrievalService | None:
    """None where experts.yaml has none, and then nothing of it is loaded. Raises as `retrieval_of` does."""
    if config.retrieval is None:
        return None
    from coe.retrieval.service import retrieval_of

    folder, database_url = settings.config_path.resolve().parent, settings.database_url.get_secret_value()
    return await asyncio.to_thread(retrieval_of, config.retrieval, folder, files, database_url, secrets)


async def opened_controller(
    settings: Settings, config: CoeConfig, urls: Mapping[str, Sequence[str]]
) -> Controller | None:
    """None where experts.yaml asks for none, and then nothing of it is loaded. Raises as `controller_of` does."""
    if config.residency is None:
        return None
    from coe.fleet.residency.setup import controller_of

    folder = settings.config_path.resolve().parent
    return await controller_of(config, config.residency, folder, settings.data_dir, urls)


def make_runner(gateway: Gateway, batches: BatchStore, name: str) -> BatchRunner:
    limits, parts = gateway.parts.config.gateway, gateway.parts
    places = Places(max(1, limits.max_concurrency // BATCH_SHARE), lambda: parts.concurrency.running)
    asker = Asker(partial(gateway.current, is_batch=True), parts.auth.known, places, limits.max_body_bytes)
    return BatchRunner(batches, name, asker)


async def auth_of(settings: Settings, config: CoeConfig, database: Database) -> Auth:
    """Keys of the environment and of SQL, and the identity provider of experts.yaml if it names one."""
    ring, provider = KeyRing(await asyncio.to_thread(KeyStore, database)), config.gateway.oidc
    oidc = None if provider is None else Oidc(provider, ring.team, load_key(settings.data_dir))
    return Auth(settings.plain_keys, ring, oidc)


def telemetry_of(settings: Settings, instance: str) -> Telemetry | None:
    """The observer of requests; None where the environment asks for nothing. Raises ConfigError, MissingExtraError."""
    has_lines = settings.log_format == "json"
    if not settings.sends_traces:
        return Telemetry(has_lines=True) if has_lines else None
    require_installed("OTEL_EXPORTER_OTLP_ENDPOINT", "google", "opentelemetry", "opentelemetry.sdk")
    from coe.gateway.telemetry.request_spans import Exporting

    return Exporting(instance, has_lines=has_lines)


def spare_what_is_there() -> None:
    """Takes everything made so far out of the garbage collector's search, because it lives as long as the process.

    Searching the 150,000 objects of a gateway stops all requests for some 90 ms, whenever requests have made enough new
    ones; a large body did so on its own. What is made from now on is collected as usual.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
