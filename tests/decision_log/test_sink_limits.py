"""The decision log where the disk is full, its bound is reached, or a record cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from coe.decision_log import sink as sink_module
from coe.decision_log import stream as stream_module
from coe.decision_log.sink import DecisionLog, LogStats
from coe.router.config.log import LogConfig
from coe_offline.redis_server import RedisServer
from tests.decision_log.running_log import FullDisk, append_new, make_record, running_log, streamed
from tests.waiting import until


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_DELAY_S", 0.05)
    monkeypatch.setattr(sink_module, "SEND_LINGER_S", 0.0)


async def test_full_disk_counts_the_gap_and_recovers_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogConfig, "queue_max_records", 100)
    disk = FullDisk(monkeypatch)
    server = RedisServer(tmp_path / "redis")
    async with running_log(tmp_path, server.url) as log:
        append_new(log, 130)
        assert log.stats().dropped == 30
        await until(lambda: log.stats().last_error == "spool: No space left on device")
        append_new(log, 150)  # the hundred queued before are in the writer's hands by now
        assert log.stats().dropped == 80
        disk.is_full = False
        await server.start()
        await until(lambda: log.stats().pending == 0)
        assert log.stats() == LogStats(appended=280, spooled=200, streamed=200, dropped=80)
    assert [seq for _, seq in streamed(server.url)] == [*range(100), *range(130, 230)]
    await server.stop()


async def test_full_disk_with_redis_there_loses_nothing(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk(monkeypatch)
    async with running_log(tmp_path, redis_url) as log:
        append_new(log, 300)
        await until(lambda: log.stats().pending == 0)
        assert log.stats().last_error == "spool: No space left on device"
        assert log.detour == "decisions wait in memory or go straight to Redis (spool: No space left on device)"
        assert (log.stats().spooled, log.stats().streamed, log.stats().dropped) == (0, 300, 0)
    assert [seq for _, seq in streamed(redis_url)] == list(range(300))


def is_full(log: DecisionLog) -> bool:
    return (log.stats().last_error or "").startswith("spool: No space left on device (spool of at most")


async def test_the_spool_is_bounded_over_all_lives(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/none.sock"
    async with running_log(tmp_path, nowhere, closing_s=0.1, spool_max_mb=1, privacy="text") as first:
        append_new(first, 400, text="long words " * 300)
        await until(lambda: is_full(first))
        taken = first.stats().spooled
        assert 0 < taken < 400
    assert first.stats().dropped == 400 - taken  # closing says what neither disk nor Redis took
    async with running_log(tmp_path, nowhere, closing_s=0.1, spool_max_mb=1, privacy="text") as second:
        append_new(second, 100, text="long words " * 300)
        await until(lambda: is_full(second))
    sizes = [path.stat().st_size for path in (tmp_path / "spool").rglob("spool.db*")]
    assert sum(sizes) <= 1.1 * 1024 * 1024


async def test_a_record_too_large_for_the_spool_is_lost_alone(tmp_path: Path, redis_url: str) -> None:
    async with running_log(tmp_path, redis_url, spool_max_mb=1, privacy="text") as log:
        append_new(log, 1)
        append_new(log, 1, text="word " * 100_000)
        append_new(log, 1)
        await until(lambda: log.stats().pending == 0)
        assert (log.stats().streamed, log.stats().dropped) == (2, 1)
    assert [seq for _, seq in streamed(redis_url)] == [0, 2]


async def test_a_record_that_is_no_json_is_lost_alone(tmp_path: Path, redis_url: str) -> None:
    async with running_log(tmp_path, redis_url) as log:
        log.append(make_record(log.next_seq()).model_copy(update={"session_id": "\ud800"}))
        append_new(log, 1)
        await until(lambda: log.stats().pending == 0)
        assert (log.stats().streamed, log.stats().dropped) == (1, 1)
