"""Services that a gateway starts: Redis and the engines of this host. Imports no more than their parent needs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Protocol

from fleet.engines import Fleet
from fleet.redis_server import RedisServer
from fleet.vllm_addresses import read_vllm
from gateway.settings import Settings, engine_environment
from router.config import CoeConfig
from router.expert_config import Engine


class StepReport(Protocol):
    """Takes the outcome of a step."""

    def done(self, outcome: str) -> None: ...


class Reporter(Protocol):
    """Shows the steps of a start."""

    def step(self, title: str) -> AbstractContextManager[StepReport]: ...


async def start_redis(stack: AsyncExitStack, settings: Settings) -> tuple[str, str]:
    """The URL of Redis, and words for it. Without REDIS_URL a Valkey in the data folder, which one gateway may have.

    Raises:
        EngineError: it cannot be started, or another gateway has the folder.
    """
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value(), "Redis at REDIS_URL"
    server = RedisServer(settings.data_dir / "redis")
    url = await server.start()
    stack.push_async_callback(server.stop)
    return url, f"embedded Valkey in {settings.data_dir / 'redis'}"


async def engines_of(
    stack: AsyncExitStack, settings: Settings, config: CoeConfig, engines: Collection[Engine]
) -> Fleet:
    """The engines of the given kinds that this host is to run, not started yet."""
    running = (await asyncio.to_thread(read_vllm, settings.data_dir)).urls
    folder = settings.config_path.resolve().parent
    fleet = Fleet(config, folder, settings.data_dir, engine_environment(config), engines, running)
    stack.push_async_callback(fleet.stop)
    return fleet


def experts_line(config: CoeConfig, fleet: Fleet) -> str:
    """A line with the number of experts, and the engines of this host that serve them."""
    hosted = {name for _, experts in fleet.statuses for name in experts}
    parts = [f"{len(experts)} on {status.name}" for status, experts in fleet.statuses]
    if others := len(config.experts.keys() - hosted):
        parts.append(f"{others} elsewhere")
    return f"{len(config.experts)} experts answer: {', '.join(parts)}"
