"""Services that a gateway starts: Redis and the engines of this host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Protocol

from coe.fleet.engines import Fleet
from coe.fleet.own_redis import redis_plugin
from coe.fleet.vllm_addresses import read_vllm
from coe.fleet.vllm_command import managed_experts
from coe.fleet.vllm_host import hosted_vllm
from coe.gateway.settings import Settings, engine_environment
from coe.router.config import CoeConfig
from coe.router.expert_config import Engine


class Reporter(Protocol):
    """Shows the steps of a start. Inside one, what it gives takes the outcome."""

    def step(self, title: str) -> AbstractContextManager[Callable[[str], None]]: ...


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
