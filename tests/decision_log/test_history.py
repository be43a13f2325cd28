"""The whole way, sink to SQL, while its parts are killed: what was appended is compared with the rows."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from coe.decision_log import stream as stream_module
from coe.decision_log.consumer import Consumer
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.doctor_commands import examine
from coe.decision_log.replica_status import ReplicaState
from coe.decision_log.sink import DecisionLog
from coe.fleet.processes.tasks import stop_task
from coe.router.config.log import LogConfig
from coe_offline.redis_server import RedisServer
from tests.decision_log.running_log import make_record
from tests.waiting import until


async def kill_redis(server: RedisServer) -> None:
    if (pid := server.pid) is not None:
        with suppress(ProcessLookupError):  # it was killed in the turn before, which is not noted yet
            os.kill(pid, signal.SIGKILL)


async def pause_redis(server: RedisServer) -> None:
    if (pid := server.pid) is not None:
        with suppress(ProcessLookupError):  # it may have been killed in the turn before, and be gone by now
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.02)
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 7))])
async def test_check_32_every_decision_is_one_row_whatever_is_killed(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_DELAY_S", 0.1)
    monkeypatch.setattr("coe.decision_log.consumer.LINGER_S", 0.0)
    rng = random.Random(seed)
    server = RedisServer(tmp_path / "redis")
    url = await server.start()
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    config = LogConfig()

    def consumer(name: str) -> Consumer:
        return Consumer(redis_url=url, stream=config.stream, database=store, name=name, block_ms=20, min_idle_ms=100)

    logs = [DecisionLog(data_dir=tmp_path, redis_url=url, config=config) for _ in range(2)]
    for log in logs:
        await log.start()
    running = consumer("c0")
    await running.start()
    appended: list[DecisionRecord] = []
    for turn in range(4):
        for log in logs:
            for _ in range(rng.randint(10, 60)):
                appended.append(make_record(log.next_seq(), log.replica))
                log.append(appended[-1])
        await asyncio.sleep(rng.random() * 0.1)
        await rng.choice((kill_redis, pause_redis))(server)
        await stop_task(running._task)  # as a kill would: nothing is handed over
        await running._redis.aclose()
        running = consumer(f"c{turn + 1}")
        await running.start()
    await until(lambda: all(log.stats().pending == 0 for log in logs))
    await until(lambda: store.count() == len(appended))
    for log in logs:
        await log.aclose()
    await running.aclose()
    await check_history(tmp_path, config, url, store, len(appended))
    assert all(store.get_decision(record.decision_id) == record for record in appended)
    store.close()
    await server.stop()


async def check_history(data_dir: Path, config: LogConfig, url: str, store: Database, count: int) -> None:
    found = await examine(data_dir, config, url, store)
    assert found.is_healthy
    assert (found.decisions, found.rows, found.in_spool) == (count, count, 0)
    assert [finding.state for finding in found.findings] == [ReplicaState.ENDED, ReplicaState.ENDED]
