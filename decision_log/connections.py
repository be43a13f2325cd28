"""Connections of the log's commands: Redis and the database, as a data folder gives them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from base.errors import DataError, StoreError, reason_of
from decision_log.database import Database
from decision_log.default_database import database_url_of
from decision_log.redis_client import RedisClusterException, RedisError, connect
from fleet.own_redis import redis_plugin

if TYPE_CHECKING:
    from decision_log.redis_client import RedisClient

T = TypeVar("T")


def given_redis() -> str | None:
    """The Redis that REDIS_URL names."""
    return os.environ.get("REDIS_URL") or None


@asynccontextmanager
async def opened_redis(data_dir: Path, redis_url: str | None, *, is_reader: bool = False) -> AsyncIterator[str]:
    """The address of Redis: the one given, or that of a plugin's server over `data_dir`, which is started where no coe
    runs there.

    Args:
        is_reader: nothing will be written, so of a folder that may not be a copy is opened.
    """
    if redis_url:
        yield redis_url
        return
    plugin, is_sealed = redis_plugin(), is_reader and not os.access(data_dir, os.W_OK)
    with copied(data_dir / "redis", plugin.KEPT_FOLDER) if is_sealed else nullcontext(data_dir) as home:
        if url := plugin.running_url(home / "redis"):
            yield url
            return
        server = plugin.RedisServer(home / "redis")
        try:
            yield await server.start()
        finally:
            await server.stop()


@contextmanager
def copied(redis: Path, kept_folder: str) -> Iterator[Path]:
    """A temporary data folder with what a server over that folder has kept. Raises DataError: it cannot be read."""
    with TemporaryDirectory(prefix="coe-") as home:
        if (kept := redis / kept_folder).exists():
            own = Path(home) / redis.name / kept_folder
            own.mkdir(parents=True)
            try:
                for path in kept.iterdir():
                    shutil.copyfile(path, own / path.name)  # without its mode: a server opens these for writing
            except OSError as error:
                raise DataError(f"{kept}: cannot be copied ({reason_of(error)})") from error
        yield Path(home)


@asynccontextmanager
async def opened_client(
    data_dir: Path, redis_url: str | None, *, is_reader: bool = False
) -> AsyncIterator[RedisClient]:
    """A client of that Redis."""
    async with opened_redis(data_dir, redis_url, is_reader=is_reader) as url:
        client = connect(url)
        try:
            yield client
        finally:
            await client.aclose()


@contextmanager
def opened_database(data_dir: Path, *, is_reader: bool = False) -> Iterator[Database]:
    """The database that DATABASE_URL names, or that of a data folder. Raises DataError where there is none."""
    if not os.environ.get("DATABASE_URL") and not data_dir.is_dir():
        raise DataError(
            f"{data_dir}: there is no such data folder; `coe up`, `coe serve` and `coe keys create` make one"
        )
    database = Database(database_url_of(data_dir), is_reader=is_reader)
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
