from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from coe.base.errors import StoreError
from coe.decision_log.consumer import Consumer, ConsumerStats
from coe.decision_log.database import Database
from coe.decision_log.stream import GROUP
from coe.decision_log.stream_entries import dead_stream
from tests.decision_log.running_log import make_record

STREAM = "coe:decisions"


async def test_entries_claimed_again_and_again_while_sql_is_away_are_not_given_up(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.decision_log.sql_engine.BUSY_TIMEOUT_MS", 20)
    database = tmp_path / "coe.db"
    with closing(Database(f"sqlite:///{database}")) as store, Redis.from_url(redis_url) as client:
        for seq in range(5):
            client.xadd(STREAM, {"record": make_record(seq).model_dump_json()})
        client.xgroup_create(STREAM, GROUP, id="0")
        client.xreadgroup(GROUP, "killed", {STREAM: ">"})
        heir = Consumer(redis_url=redis_url, stream=STREAM, database=store, name="heir")
        try:
            with closing(sqlite3.connect(database, isolation_level=None)) as lock:
                lock.execute("BEGIN IMMEDIATE")
                for _ in range(8):
                    with pytest.raises(StoreError, match="locked"):
                        await heir._claim(min_idle_ms=0)
            assert await heir.drain() == ConsumerStats(written=5)
        finally:
            await heir.aclose()
        assert client.xpending(STREAM, GROUP)["pending"] == 0
        assert not client.exists(dead_stream(STREAM))
