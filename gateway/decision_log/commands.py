"""`coe log doctor` and `coe log drain`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from redis.exceptions import RedisError

from gateway.decision_log.consumer import Consumer
from gateway.decision_log.entries import waiting_in
from gateway.decision_log.leftovers import send_leftovers, spooled_records
from gateway.decision_log.sink import SPOOL_FOLDER, new_replica
from gateway.decision_log.stats import ConsumerStats
from gateway.decision_log.stream import DecisionStream, connect, reason_of
from gateway.fleet.redis_server import RedisServer, running_url
from gateway.store import ReplicaCount, Store
from router.config import LogConfig, load_config
from router.errors import StoreError

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")

DataDir = Annotated[Path, typer.Option(envvar="COE_DATA_DIR", help="Data folder.")]
ConfigFile = Annotated[Path, typer.Option(envvar="COE_CONFIG", help="experts.yaml.")]
RedisUrl = Annotated[str | None, typer.Option(envvar="REDIS_URL", help="Default: the embedded one.")]
DatabaseUrl = Annotated[str | None, typer.Option(envvar="DATABASE_URL", help="Default: coe.db in the data folder.")]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Where every decision is: in SQL by replica, on the way, or given up."""

    replicas: tuple[ReplicaCount, ...]
    in_spool: int
    in_stream: int
    dead: int

    @property
    def rows(self) -> int:
        return sum(count.rows for count in self.replicas)

    @property
    def missing(self) -> int:
        return sum(count.missing for count in self.replicas)

    @property
    def duplicates(self) -> int:
        return sum(count.duplicates for count in self.replicas)

    @property
    def is_healthy(self) -> bool:
        """Whether no decision is missing, repeated or dead; some may still be on the way."""
        return self.missing == self.duplicates == self.dead == 0


def doctor(
    data_dir: DataDir = Path("data"),
    config: ConfigFile = Path("experts.yaml"),
    redis_url: RedisUrl = None,
    database_url: DatabaseUrl = None,
) -> int:
    """Prove that the decision log lost nothing, or name the gaps; exit status 1 when there are some."""
    from rich.console import Console

    with opened_store(data_dir, database_url) as store:
        found = run_with_redis(diagnose(data_dir, load_config(config).log, redis_url, store))
    console = Console()
    if found.replicas:
        console.print(replica_table(found.replicas))
    console.print(
        f"{found.rows + found.missing - found.duplicates:,} decisions, {found.rows:,} rows, {found.missing:,} missing, "
        f"{found.duplicates:,} duplicates, {found.dead:,} dead letters; "
        f"on the way: {found.in_spool:,} in the spool, {found.in_stream:,} in the stream"
    )
    if found.missing and found.in_spool + found.in_stream:
        console.print("missing decisions may be among those on the way: run `coe log drain`, then ask again")
    return 0 if found.is_healthy else 1


def drain(
    data_dir: DataDir = Path("data"),
    config: ConfigFile = Path("experts.yaml"),
    redis_url: RedisUrl = None,
    database_url: DatabaseUrl = None,
) -> int:
    """Write what waits in spools and stream to SQL; exit status 1 when an entry could not be written."""
    from rich.console import Console

    console = Console()
    with opened_store(data_dir, database_url) as store, console.status("draining ..."):
        sent, stats = run_with_redis(drain_all(data_dir, load_config(config).log, redis_url, store))
    console.print(
        f"{sent:,} decisions sent from spools; {stats.written:,} rows written, {stats.repeated:,} were there already, "
        f"{stats.dead:,} given up"
    )
    return 1 if stats.dead else 0


async def diagnose(data_dir: Path, config: LogConfig, redis_url: str | None, store: Store) -> Diagnosis:
    """Counts decisions wherever they are. Raises RedisError, StoreError, EngineError."""
    async with opened_redis(data_dir, redis_url) as url:
        client = connect(url)
        try:
            in_stream, dead = await waiting_in(client, config.stream)
        finally:
            await client.aclose()
    return Diagnosis(store.replica_counts(), spooled_records(data_dir / SPOOL_FOLDER), in_stream, dead)


async def drain_all(
    data_dir: Path, config: LogConfig, redis_url: str | None, store: Store
) -> tuple[int, ConsumerStats]:
    """Brings everything that no live process is busy with into SQL. Raises RedisError, StoreError, EngineError."""
    async with opened_redis(data_dir, redis_url) as url:
        stream = DecisionStream(url, name=config.stream, max_entries=config.stream_max_entries)
        consumer = Consumer(redis_url=url, stream=config.stream, store=store, name=new_replica())
        try:
            await consumer.drain()
            sent, _ = await send_leftovers(data_dir / SPOOL_FOLDER, stream)
            stats = await consumer.drain()
        finally:
            await consumer.aclose()
            await stream.aclose()
    return sent, stats


@asynccontextmanager
async def opened_redis(data_dir: Path, redis_url: str | None) -> AsyncIterator[str]:
    """The address of Redis: the one given, that of a coe which runs on `data_dir`, or of a server started for now."""
    url = redis_url or running_url(data_dir / "redis")
    if url is not None:
        yield url
        return
    server = RedisServer(data_dir / "redis")
    try:
        yield await server.start()
    finally:
        await server.stop()


@contextmanager
def opened_store(data_dir: Path, database_url: str | None) -> Iterator[Store]:
    store = Store(database_url or f"sqlite:///{data_dir / 'coe.db'}")
    try:
        yield store
    finally:
        store.close()


def run_with_redis(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end.

    Raises:
        StoreError: Redis does not answer, besides what the coroutine raises.
    """
    try:
        return asyncio.run(work)
    except RedisError as error:
        raise StoreError(f"Redis does not answer ({reason_of(error)})", is_retryable=True) from error


def replica_table(replicas: tuple[ReplicaCount, ...]) -> Table:
    """Replicas that have a fault first."""
    from rich.table import Table

    table = Table("replica", "decisions", "rows", "missing", "duplicates")
    for count in sorted(replicas, key=lambda each: (-each.missing, -each.duplicates, each.replica)):
        numbers = (count.last_seq + 1, count.rows, count.missing, count.duplicates)
        table.add_row(count.replica, *(f"{number:,}" for number in numbers))
    return table
