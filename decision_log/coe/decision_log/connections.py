"""Connections of the log's commands: Redis and the database, as a data folder gives them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from coe.base.errors import DataError, StoreError, reason_of
from coe.decision_log.database import Database
from coe.decision_log.default_database import database_url_of
from coe.decision_log.redis_client import RedisClusterException, RedisError, connect
from coe.fleet.processes.own_redis import redis_plugin

if TYPE_CHECKING:
    from coe.decision_log.redis_client import RedisClient

T = TypeVar("T")


def given_redis() -> str | None:
    """The Redis that REDIS_URL names."""
    return os.environ.get("REDIS_URL") or None


@asynccontextmanager
async def opened_redis(data_dir: Path, redis_url: str | None) -> AsyncIterator[str]:
    """The address of Redis: the one given, or that of a plugin's server over `data_dir`, which is started where no coe
    runs there."""
    if redis_url:
        yield redis_url
        return
    plugin, home = redis_plugin(), data_dir / "redis"
    if url := plugin.running_url(home):
        yield url
        return
    server = plugin.RedisServer(home)
    try:
        yield await server.start()
    finally:
        await server.stop()


@asynccontextmanager
async def opened_client(data_dir: Path, redis_url: str | None) -> AsyncIterator[RedisClient]:
    """A client of that Redis."""
    async with opened_redis(data_dir, redis_url) as url:
        client = connect(url)
        try:
            yield client
        finally:
            await client.aclose()


@contextmanager
def opened_database(data_dir: Path) -> Iterator[Database]:
    """The database that DATABASE_URL names, or that of a data folder. Raises DataError where there is none."""
    if not os.environ.get("DATABASE_URL") and not data_dir.is_dir():
        raise DataError(
            f"{data_dir}: there is no such data folder; `coe up`, `coe serve` and `coe keys create` make one"
        )
    database = Database(database_url_of(data_dir))
    try:
        yield database
    finally:
        database.close()


def run_with_redis(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end.

    Raises:
        StoreError: Redis does not answer, besides what the coroutine raises.
    """
    try:
        return asyncio.run(work)
    except (RedisError, RedisClusterException) as error:
        raise StoreError(f"Redis does not answer ({reason_of(error)})", is_retryable=True) from error
