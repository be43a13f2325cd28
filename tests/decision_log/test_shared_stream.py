"""Several gateways on several machines and several consumers share one stream and one database."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from redis import Redis

from coe.decision_log.consumer import Consumer
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.doctor_commands import examine
from coe.decision_log.sink import DecisionLog
from coe.decision_log.stream import GROUP
from coe.decision_log.tables import METADATA
from coe.fleet.processes.tasks import stop_task
from coe.router.config.log import LogConfig
from tests.decision_log.running_log import make_record
from tests.waiting import until

GATEWAYS, CONSUMERS, ROUNDS, PER_ROUND = 3, 3, 6, 40


async def test_each_decision_is_one_row_although_a_consumer_dies(
    database_url: str, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.decision_log.consumer.LINGER_S", 0.0)
    monkeypatch.setattr("coe.decision_log.consumer.BATCH_RECORDS", 20)
    monkeypatch.setattr("coe.decision_log.sink.SEND_LINGER_S", 0.0)
    config = LogConfig()
    stores = [Database(database_url) for _ in range(CONSUMERS)]
    with stores[0].transaction("empty") as connection:
        for table in METADATA.sorted_tables:
            connection.execute(table.delete())
    consumers = [
        Consumer(redis_url=redis_url, stream=config.stream, database=store, name=f"c{n}", block_ms=20, min_idle_ms=200)
        for n, store in enumerate(stores)
    ]
    hosts = [tmp_path / f"host{n}" for n in range(GATEWAYS)]
    logs = [DecisionLog(data_dir=host, redis_url=redis_url, config=config) for host in hosts]
    await asyncio.gather(*(consumer.start() for consumer in consumers), *(log.start() for log in logs))
    appended: list[DecisionRecord] = []
    for turn in range(ROUNDS):
        for log in logs:
            for _ in range(PER_ROUND):
                appended.append(make_record(log.next_seq(), log.replica))
                log.append(appended[-1])
        await asyncio.sleep(0)
        if turn == ROUNDS // 2:
            await until(lambda: stores[0].count() > 0)
            await stop_task(consumers[0]._task)  # as a kill would: what it holds stays pending
    await until(lambda: stores[1].count() == len(appended))
    for log in logs:
        await log.aclose()
    await until(lambda: sum(each.stats().written for each in consumers) == len(appended))
    with Redis.from_url(redis_url) as client:  # what the dead one held is claimed and found to be there already
        await until(lambda: client.xpending(config.stream, GROUP)["pending"] == 0)
    for consumer in consumers[1:]:
        await consumer.aclose()
    await consumers[0]._redis.aclose()
    found = await examine(hosts[0], config, redis_url, stores[1])
    assert found.is_healthy
    assert (found.decisions, found.rows, found.in_stream) == (len(appended), len(appended), 0)
    assert {finding.replica: finding.rows for finding in found.findings} == Counter(
        record.replica for record in appended
    )
    assert sum(consumer.stats().written > 0 for consumer in consumers) > 1
    assert all(stores[1].get_decision(record.decision_id) == record for record in appended)
    for store in stores:
        store.close()
