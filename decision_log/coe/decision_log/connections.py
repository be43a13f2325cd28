"""Connections of the log's commands to Redis and to the database, for a data folder."""

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
    """Return the Redis URL in REDIS_URL, if any."""
    return os.environ.get("REDIS_URL") or None


@asynccontextmanager
async def opened_redis(data_dir: Path, redis_url: str | None) -> AsyncIterator[str]:
    """Yield the URL of Redis: the given one, or that of a plugin's server, started if no coe runs on `data_dir`."""
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
    """Yield a client of the Redis that `opened_redis` finds."""
    async with opened_redis(data_dir, redis_url) as url:
        client = connect(url)
        try:
            yield client
        finally:
            await client.aclose()


@contextmanager
def opened_database(data_dir: Path) -> Iterator[Database]:
    """Yield the database of DATABASE_URL, or of the data folder; raise DataError if that folder does not exist."""
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
    """Run a coroutine to its end; its own errors pass through.

    Raises:
        StoreError: Redis does not answer.
    """
    try:
        return asyncio.run(work)
    except (RedisError, RedisClusterException) as error:
        raise StoreError(f"Redis does not answer ({reason_of(error)})", is_retryable=True) from error
