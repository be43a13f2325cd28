from __future__ import annotations

import asyncio
import json
import logging
import math
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import select
from sqlmodel import col

from coe.base.errors import StoreError
from coe.decision_log import stream as stream_module
from coe.decision_log.consumer import Consumer, ConsumerStats
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionInputs, DecisionRecord
from coe.decision_log.doctor import number_of
from coe.decision_log.ledger import Account, Ledger
from coe.decision_log.redis_client import connect
from coe.decision_log.replica_status import ReplicaState, ReplicaStatus
from coe.decision_log.stream import GROUP, packed
from coe.decision_log.stream_entries import dead_stream, waiting_entries
from coe.decision_log.tables.log import DecisionRow
from coe.fleet.processes.tasks import stop_task
from coe.router.config.log import LogConfig
from coe.router.types import QueryFacts
from coe_offline.redis_server import RedisServer
from tests.decision_log.running_log import append_new, make_record, running_log
from tests.waiting import until

DATABASES = ("sqlite",)

STREAM = "coe:decisions"
TOO_LARGE = 10**20  # for a column of SQLite


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_DELAY_S", 0.05)
    monkeypatch.setattr("coe.decision_log.consumer.LINGER_S", 0.0)
    monkeypatch.setattr("coe.decision_log.sql_engine.BUSY_TIMEOUT_MS", 20)


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as opened:
        yield opened


def make_consumer(redis_url: str, store: Database, name: str = "c1", min_idle_ms: int = 60_000) -> Consumer:
    return Consumer(redis_url=redis_url, stream=STREAM, database=store, name=name, block_ms=20, min_idle_ms=min_idle_ms)


@asynccontextmanager
async def running(consumer: Consumer) -> AsyncIterator[Consumer]:
    await consumer.start()
    yield consumer
    await consumer.aclose()


def add(client: Redis, records: Sequence[DecisionRecord]) -> list[bytes]:
    with client.pipeline() as pipeline:
        for record in records:
            pipeline.xadd(STREAM, {"record": record.model_dump_json()})
        return list(pipeline.execute())


def pending(client: Redis) -> int:
    return int(client.xpending(STREAM, GROUP)["pending"])


async def test_each_decision_becomes_one_row(redis_url: str, client: Redis, store: Database) -> None:
    records = [make_record(seq) for seq in range(250)]
    async with running(make_consumer(redis_url, store)) as consumer:
        add(client, records)
        add(client, records[:50])
        await until(lambda: consumer.stats().written + consumer.stats().repeated == 300)
        assert consumer.stats() == ConsumerStats(written=250, repeated=50)
        await until(lambda: pending(client) == 0)
    assert store.count() == 250
    assert store.get_decision("r1-7") == records[7]


async def test_nothing_is_lost_when_more_comes_than_the_stream_may_hold_before_a_consumer_does(
    tmp_path: Path, redis_url: str, client: Redis, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database is away the stream fills up, and the rest waits in the spool."""
    monkeypatch.setattr(LogConfig, "stream_max_entries", 1000)
    async with running_log(tmp_path, redis_url) as log:
        append_new(log, 4000)
        await until(lambda: "in no database yet" in (log.stats().last_error or ""))
        assert client.xlen(STREAM) < 4000
        assert log.stats().pending > 0
        async with running(make_consumer(redis_url, store)) as consumer:
            await until(lambda: consumer.stats().written == 4000)
        await until(lambda: log.stats().pending == 0)
        assert log.stats().dropped == 0
    assert all(store.get_decision(f"{log.replica}-{seq}") for seq in range(4000))


async def test_consumer_killed_between_write_and_acknowledgement(
    redis_url: str, client: Redis, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(client, [make_record(seq) for seq in range(20)])
    killed = make_consumer(redis_url, store, "killed")

    async def hang(*_: object) -> int:
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(killed, "_acknowledge", hang)
    await killed.start()
    await until(lambda: store.count() == 20)
    assert pending(client) == 20  # nothing is acknowledged before it is committed, and here never
    assert killed._task is not None
    await stop_task(killed._task)
    async with running(make_consumer(redis_url, store, "heir", min_idle_ms=1)) as heir:
        await until(lambda: heir.stats().repeated == 20)
        await until(lambda: pending(client) == 0)
    assert store.count() == 20
    assert heir.stats() == ConsumerStats(written=0, repeated=20)
    await killed._redis.aclose()


async def test_nothing_is_acknowledged_while_sql_is_away_and_no_delivery_is_used_up(
    tmp_path: Path, redis_url: str, client: Redis, store: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "coe.decision_log.consumer")
    lock = sqlite3.connect(tmp_path / "coe.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    add(client, [make_record(seq) for seq in range(5)])
    async with running(make_consumer(redis_url, store)) as consumer:
        await until(lambda: "locked" in (consumer.stats().last_error or ""))
        assert pending(client) == 5
        lock.execute("ROLLBACK")
        lock.close()
        await until(lambda: consumer.stats() == ConsumerStats(written=5))
        await until(lambda: pending(client) == 0)
    assert store.count() == 5
    assert [line.message for line in caplog.records][-1] == "decisions go from the stream to SQL again"


async def test_garbage_goes_to_the_dead_letters_after_five_deliveries(
    redis_url: str, client: Redis, store: Database
) -> None:
    add(client, [make_record(0)])
    client.xadd(STREAM, {"record": "{no json"})
    client.xadd(STREAM, {"other": "field"})
    add(client, [make_record(1)])
    consumer = make_consumer(redis_url, store)
    assert await consumer._step(block_ms=None) == 4
    assert store.count() == 2
    for delivery in range(2, 6):
        assert await consumer._claim(min_idle_ms=0) == 2, delivery
        assert consumer.stats().dead == 0
    await consumer._claim(min_idle_ms=0)
    assert consumer.stats() == ConsumerStats(written=2, dead=2)
    assert pending(client) == 0
    dead = client.xrange(dead_stream(STREAM))
    assert [fields[b"record"] for _, fields in dead] == [b"{no json", b""]
    await consumer.aclose()


async def test_one_row_the_database_refuses_does_not_hold_up_the_others(
    tmp_path: Path, redis_url: str, client: Redis, store: Database
) -> None:
    with sqlite3.connect(tmp_path / "coe.db") as other:
        other.execute(
            "CREATE TRIGGER t BEFORE INSERT ON decisions WHEN NEW.decision_id = 'r1-3' "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    other.close()
    add(client, [make_record(seq) for seq in range(6)])
    consumer = make_consumer(redis_url, store)
    stats = await consumer.drain()
    assert (stats.written, stats.dead) == (5, 1)
    assert store.get_decision("r1-3") is None
    assert pending(client) == 0
    await consumer.aclose()


async def test_of_an_entry_of_several_only_what_cannot_be_written_is_dead(
    redis_url: str, client: Redis, store: Database
) -> None:
    good = [make_record(seq).model_dump_json().encode() for seq in range(3)]
    client.xadd(STREAM, {"record": packed([good[0], b"garbage", good[1], b"{"])})
    torn = packed(good)[:-1]
    client.xadd(STREAM, {"record": torn})
    consumer = make_consumer(redis_url, store)
    stats = await consumer.drain()
    assert (stats.written, stats.dead, client.xlen(STREAM)) == (2, 3, 0)
    assert [fields[b"record"] for _, fields in client.xrange(dead_stream(STREAM))] == [b"garbage", b"{", torn]
    await consumer.aclose()


async def test_more_entries_are_read_at_once_where_each_has_one_record(
    redis_url: str, client: Redis, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(client, [make_record(seq) for seq in range(80)])
    together = [make_record(seq).model_dump_json().encode() for seq in range(80, 400)]
    client.xadd(STREAM, {"record": packed(together)})
    consumer, asked = make_consumer(redis_url, store), list[int]()
    read = consumer._redis.xreadgroup

    async def counted(*args: Any, count: int, **options: Any) -> Any:
        asked.append(count)
        return await read(*args, count=count, **options)

    monkeypatch.setattr(consumer._redis, "xreadgroup", counted)
    assert (await consumer.drain()).written == 400
    assert asked[:4] == [8, 64, 64, 8]
    await consumer.aclose()


async def test_a_life_the_database_refuses_does_not_hold_up_decisions(
    tmp_path: Path, redis_url: str, client: Redis, store: Database
) -> None:
    with sqlite3.connect(tmp_path / "coe.db") as other:
        other.execute("CREATE TRIGGER t BEFORE INSERT ON replicas BEGIN SELECT RAISE(ABORT, 'refused'); END")
    other.close()
    client.xadd(
        STREAM, {"status": ReplicaStatus(replica="r1", decisions=1, state=ReplicaState.ENDED, at=1.0).model_dump_json()}
    )
    add(client, [make_record(0)])
    consumer = make_consumer(redis_url, store)
    stats = await consumer.drain()
    assert (stats.written, stats.dead, pending(client)) == (1, 1, 0)
    await consumer.aclose()


async def test_entries_of_a_dead_consumer_are_claimed(redis_url: str, client: Redis, store: Database) -> None:
    add(client, [make_record(seq) for seq in range(150)])
    client.xgroup_create(STREAM, GROUP, id="0")
    client.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=150)
    async with running(make_consumer(redis_url, store, min_idle_ms=1)) as consumer:
        await until(lambda: consumer.stats().written == 150)
        await until(lambda: pending(client) == 0)


async def test_entries_of_a_live_consumer_are_left_alone(redis_url: str, client: Redis, store: Database) -> None:
    add(client, [make_record(0)])
    client.xgroup_create(STREAM, GROUP, id="0")
    client.xreadgroup(GROUP, "busy", {STREAM: ">"})
    consumer = make_consumer(redis_url, store)
    assert await consumer._step(block_ms=None) == 0
    assert store.count() == 0
    await consumer.aclose()


async def test_entries_trimmed_while_pending_are_forgotten(redis_url: str, client: Redis, store: Database) -> None:
    ids = add(client, [make_record(0), make_record(1)])
    client.xgroup_create(STREAM, GROUP, id="0")
    client.xreadgroup(GROUP, "dead", {STREAM: ">"})
    client.xdel(STREAM, ids[0])
    consumer = make_consumer(redis_url, store)
    await consumer.drain()
    assert store.count() == 1
    assert pending(client) == 0
    await consumer.aclose()


async def test_redis_away_at_start_then_back(tmp_path: Path, store: Database) -> None:
    server = RedisServer(tmp_path / "redis")
    async with running(make_consumer(server.url, store)) as consumer:
        await until(lambda: "ConnectionError" in (consumer.stats().last_error or ""))
        await server.start()
        with Redis.from_url(server.url) as client:
            add(client, [make_record(0)])
        await until(lambda: consumer.stats() == ConsumerStats(written=1))
    await server.stop()


async def test_a_redis_that_lost_its_data_gets_a_new_group(redis_url: str, client: Redis, store: Database) -> None:
    async with running(make_consumer(redis_url, store)) as consumer:
        add(client, [make_record(0)])
        await until(lambda: consumer.stats().written == 1)
        client.flushall()
        add(client, [make_record(1)])
        await until(lambda: consumer.stats() == ConsumerStats(written=2))


async def test_the_stream_forgets_what_is_in_sql(redis_url: str, client: Redis, store: Database) -> None:
    add(client, [make_record(seq) for seq in range(5)])
    bad = client.xadd(STREAM, {"record": "garbage"})
    consumer = make_consumer(redis_url, store)
    assert await consumer._step(block_ms=None) == 6
    assert [entry for entry, _ in client.xrange(STREAM)] == [bad]
    await consumer.drain()
    assert client.xlen(STREAM) == 0
    await consumer.aclose()


async def test_two_consumers_share_the_work(redis_url: str, client: Redis, store: Database) -> None:
    async with running(make_consumer(redis_url, store, "a")) as a, running(make_consumer(redis_url, store, "b")) as b:
        for start in range(0, 600, 50):
            add(client, [make_record(seq) for seq in range(start, start + 50)])
            await asyncio.sleep(0)
        await until(lambda: a.stats().written + b.stats().written == 600)
    assert store.count() == 600


async def test_closing_writes_what_is_there_and_leaves_the_group(
    redis_url: str, client: Redis, store: Database
) -> None:
    consumer = make_consumer(redis_url, store)
    await consumer.start()
    add(client, [make_record(seq) for seq in range(230)])
    await consumer.aclose()
    assert store.count() == 230
    assert client.xinfo_consumers(STREAM, GROUP) == []


async def test_closing_writes_a_batch_that_came_just_when_it_was_stopped(
    redis_url: str, client: Redis, store: Database
) -> None:
    add(client, [make_record(seq) for seq in range(3)])
    client.xgroup_create(STREAM, GROUP, id="0")
    consumer = make_consumer(redis_url, store, "stopped")
    client.xreadgroup(GROUP, "stopped", {STREAM: ">"})
    await consumer.aclose()
    assert store.count() == 3
    assert pending(client) == 0


async def test_a_name_with_pending_entries_stays_in_the_group(redis_url: str, client: Redis, store: Database) -> None:
    client.xadd(STREAM, {"record": "garbage"})
    consumer = make_consumer(redis_url, store)
    await consumer.aclose()
    assert pending(client) == 1
    assert [each["name"] for each in client.xinfo_consumers(STREAM, GROUP)] == [b"c1"]


async def test_a_fault_is_visible_and_survived(
    redis_url: str, client: Redis, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = store.write_decisions
    faults = [RuntimeError("unforeseen")]

    def write(records: Sequence[DecisionRecord]) -> int:
        if faults:
            raise faults.pop()
        return real_write(records)

    monkeypatch.setattr(store, "write_decisions", write)
    async with running(make_consumer(redis_url, store)) as consumer:
        add(client, [make_record(0)])
        await until(lambda: consumer.stats().last_error == "RuntimeError: unforeseen")
        await until(lambda: consumer.stats() == ConsumerStats(written=1))
        await until(lambda: pending(client) == 0)


async def test_no_text_of_a_broken_entry_reaches_the_log(
    redis_url: str, client: Redis, store: Database, caplog: pytest.LogCaptureFixture
) -> None:
    client.xadd(STREAM, {"record": '{"text": "canary words"}'})
    consumer = make_consumer(redis_url, store)
    await consumer.drain()
    assert "is not a decision (missing)" in caplog.text
    assert "canary" not in caplog.text
    await consumer.aclose()


async def test_fields_that_only_a_later_coe_knows_are_left_out_and_kept_in_sql(
    redis_url: str, client: Redis, store: Database
) -> None:
    inputs = DecisionInputs(encoder="e", features="f", settings="s", facts=QueryFacts())
    record = make_record(0).model_copy(update={"inputs": inputs})
    values = json.loads(record.model_dump_json(exclude={"embedding"})) | {"mood": "canary words"}
    for part in (values["decision"], values["usage"], values["inputs"], values["inputs"]["facts"]):
        part["mood"] = 1
    client.xadd(STREAM, {"record": json.dumps(values)})
    client.xadd(STREAM, {"status": '{"replica":"r1","decisions":1,"state":"ended","at":1,"mood":1}'})
    consumer = make_consumer(redis_url, store)
    assert await consumer.drain() == ConsumerStats(written=1)
    assert store.get_decision(record.decision_id) == record.model_copy(update={"embedding": None})
    with store.transaction("look") as connection:
        assert json.loads(connection.execute(select(col(DecisionRow.record))).scalar_one()) == values
    await consumer.aclose()


async def test_what_sql_has_no_column_for_keeps_no_decision_from_it(
    redis_url: str, client: Redis, store: Database
) -> None:
    """A reason and a state that only a later coe knows, and a number that JSON lacks."""
    later, odd = make_record(0), make_record(1)
    odd = odd.model_copy(update={"decision": odd.decision.model_copy(update={"eligible_probs": (math.inf,)})})
    values = json.loads(later.model_dump_json(exclude={"embedding"}))
    values["decision"]["reason"], values["state"] = "intuition", "cached"
    client.xadd(STREAM, {"record": json.dumps(values)})
    add(client, [odd])
    consumer = make_consumer(redis_url, store)
    assert await consumer.drain() == ConsumerStats(written=2)
    assert store.get_decision(odd.decision_id) == odd
    with pytest.raises(StoreError, match="is not a decision record"):
        store.get_decision(later.decision_id)
    await consumer.aclose()


async def waiting(redis_url: str) -> list[tuple[str, int] | None]:
    client = connect(redis_url)
    found = [number_of(entry.payload or b"") async for entry in waiting_entries(client, STREAM)]
    await client.aclose()
    return found


async def test_waiting_are_entries_not_delivered_and_those_not_acknowledged(
    redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.decision_log.stream_entries.PAGE_ENTRIES", 2)
    assert await waiting(redis_url) == []
    add(client, [make_record(seq) for seq in range(9)])
    assert await waiting(redis_url) == [("r1", seq) for seq in range(9)]
    client.xgroup_create(STREAM, GROUP, id="0")
    rows = client.xreadgroup(GROUP, "c", {STREAM: ">"}, count=6)
    client.xack(STREAM, GROUP, rows[0][1][0][0])
    client.xdel(STREAM, rows[0][1][2][0])
    assert await waiting(redis_url) == [("r1", seq) for seq in (6, 7, 8, 1, 3, 4, 5)]


async def test_lives_reach_sql_and_garbage_is_dead(redis_url: str, client: Redis, store: Database) -> None:
    add(client, [make_record(0)])
    heard = ReplicaStatus(replica="r1", decisions=3, state=ReplicaState.ENDED, at=1.0)
    client.xadd(STREAM, {"status": heard.model_dump_json()})
    client.xadd(STREAM, {"status": "{}"})
    client.xadd(STREAM, {"record": make_record(2).model_dump_json().replace('"seq":2', f'"seq":{TOO_LARGE}')})
    client.xadd(STREAM, {"status": heard.model_copy(update={"decisions": TOO_LARGE}).model_dump_json()})
    consumer = make_consumer(redis_url, store)
    stats = await consumer.drain()
    assert (stats.written, stats.dead) == (1, 3)
    assert Ledger(store).accounts() == [Account("r1", heard, 1, [range(1)])]
    assert sorted(name for _, fields in client.xrange(dead_stream(STREAM)) for name in fields if name != b"entry") == [
        b"record",
        *2 * [b"status"],
    ]
    await consumer.aclose()
