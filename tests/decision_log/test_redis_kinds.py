"""The whole way, sink to SQL, through a Redis Cluster and through Sentinels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio.sentinel import MasterNotFoundError

from coe.decision_log import stream as stream_module
from coe.decision_log.consumer import Consumer
from coe.decision_log.database import Database
from coe.decision_log.doctor import Diagnosis
from coe.decision_log.doctor_commands import examine
from coe.decision_log.sink import DecisionLog
from coe.decision_log.stream_entries import dead_stream
from coe.router.config.log import LogConfig
from tests.decision_log.redis_kinds import Server, Watched, cluster
from tests.decision_log.running_log import make_record
from tests.waiting import until

DATABASES = ("sqlite",)

CONFIG = LogConfig()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_DELAY_S", 0.2)
    monkeypatch.setattr("coe.decision_log.consumer.LINGER_S", 0.0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Server]:
    with cluster(tmp_path) as server:
        yield server


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    servers = Watched(tmp_path)
    yield servers
    servers.kill()


async def write_through(url: str, interrupt: Callable[[], None], *, data_dir: Path, store: Database) -> int:
    """Appends decisions, some before and some after `interrupt`, and waits until all are rows."""
    log = DecisionLog(data_dir=data_dir, redis_url=url, config=CONFIG)
    consumer = Consumer(redis_url=url, stream=CONFIG.stream, database=store, name="c", block_ms=20, min_idle_ms=100)
    await log.start()
    await consumer.start()
    for _ in range(100):
        log.append(make_record(log.next_seq(), log.replica))
    await until(lambda: store.count() == 100)
    await asyncio.to_thread(interrupt)
    for _ in range(100):
        log.append(make_record(log.next_seq(), log.replica))
    await until(lambda: store.count() == 200)
    await log.aclose()
    await consumer.aclose()

    async def examined() -> Diagnosis | None:
        try:
            return await examine(data_dir, CONFIG, url, store)
        except MasterNotFoundError:  # on a busy machine a Sentinel takes a master that stalls for dead, for a moment
            return None

    found = await until(examined)
    assert (found.is_healthy, found.decisions, found.rows) == (True, 200, 200)
    return found.in_stream


async def test_a_cluster_that_is_killed_and_comes_back(node: Server, tmp_path: Path, store: Database) -> None:
    def restart() -> None:
        node.kill()
        node.start()

    url = f"redis+cluster://127.0.0.1:{node.port},127.0.0.1:1"
    await write_through(url, restart, data_dir=tmp_path, store=store)


async def test_dead_letters_of_a_cluster(node: Server, store: Database) -> None:
    with Redis(port=node.port) as client:
        client.xadd(CONFIG.stream, {"record": "garbage"})
        consumer = Consumer(
            redis_url=f"redis+cluster://127.0.0.1:{node.port}", stream=CONFIG.stream, database=store, name="c"
        )
        assert (await consumer.drain()).dead == 1
        await consumer.aclose()
        assert client.xlen(dead_stream(CONFIG.stream)) == 1


async def test_sentinels_name_the_master(watched: Watched, tmp_path: Path, store: Database) -> None:
    await write_through(watched.url, nothing, data_dir=tmp_path, store=store)
    with Redis(port=watched.master.port) as master:
        assert master.xinfo_stream(CONFIG.stream)["entries-added"] > 0


def nothing() -> None:
    """No interruption."""


@pytest.mark.slow
async def test_sentinels_name_the_new_master_when_the_old_one_dies(
    watched: Watched, tmp_path: Path, store: Database
) -> None:
    with Redis(port=watched.replica.port) as replica, Redis(port=watched.sentinel.port) as sentinel:
        # A failover needs a replica that the Sentinel knows and that has everything.
        await until(lambda: replica.info("replication")["master_link_status"] == "up")
        await until(lambda: bool(sentinel.sentinel_slaves("decisions")))
        await write_through(watched.url, watched.fail_over, data_dir=tmp_path, store=store)
        assert replica.info("replication")["role"] == "master"
