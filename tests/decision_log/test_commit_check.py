"""In the modes that wait, a log that cannot make rows safe is noticed before an expert is asked, and so is its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis import Redis

from coe.base.errors import StoreError
from coe.decision_log import spool_writer
from coe.decision_log.sink import DecisionLog
from coe.decision_log.spool import Spool
from coe.router.config.log import LogConfig
from tests.decision_log.running_log import evicting_redis, make_record, running_log
from tests.waiting import DEADLINE_S, until

DURABLE = ("batched", "sync")


@pytest.fixture
def no_redis(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/none.sock"


class Disk:
    """A disk that says how much is free, and takes nothing while nothing is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        monkeypatch.setattr(Spool, "write", self._if_room(Spool.write))
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=0 if self.is_full else 2**30, f_frsize=1))

    def _if_room(self, call: Callable[..., int | None]) -> Callable[..., int | None]:
        def checked(*arguments: object) -> int | None:
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments)

        return checked


@pytest.mark.parametrize("durability", DURABLE)
async def test_a_full_disk_is_noticed_at_once_and_so_is_its_end(
    durability: str, tmp_path: Path, no_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    async with running_log(tmp_path, no_redis, closing_s=0.1, durability=durability) as log:
        await until(lambda: log.detour is not None)  # Redis is known to be away
        log.check()
        assert log.problem is None
        disk.is_full = True
        with pytest.raises(StoreError, match=r"cannot be written .spool: No space left") as refused:
            log.check()
        assert refused.value.is_retryable
        assert log.problem == "spool: No space left on device"
        disk.is_full = False
        assert log.problem is None  # without a request
        log.check()


async def test_a_full_spool_is_noticed_while_redis_is_away(tmp_path: Path, no_redis: str) -> None:
    async with running_log(tmp_path, no_redis, closing_s=0.1, durability="sync", spool_max_mb=1, privacy="text") as log:
        with pytest.raises(StoreError, match=r"cannot be written .spool: No space left on device"):
            await answer_on(log)
        assert 10 < log.stats().spooled < 30


async def answer_on(log: DecisionLog) -> None:
    """Every row of an answer that was let through is safe, until none is let through any more."""
    for seq in range(100):
        log.check()
        await log.commit(make_record(seq, text="word " * 10_000))


async def test_while_the_disk_is_full_redis_is_trusted_until_it_refuses(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_writer, "COMMIT_TIMEOUT_S", 0.05)
    disk = Disk(monkeypatch)
    async with running_log(tmp_path, redis_url, durability="sync") as log:
        disk.is_full = True
        log.check()
        await log.commit(make_record(0))
        assert (log.problem, log.stats().streamed) == (None, 1)
        with Redis.from_url(redis_url) as client:
            client.config_set("maxmemory", 1)
            try:
                with pytest.raises(StoreError, match="No space left"):
                    await log.commit(make_record(1))
                with pytest.raises(StoreError, match="No space left"):
                    log.check()
            finally:
                client.config_set("maxmemory", 0)
        await until(lambda: log.problem is None)
        assert log.stats().streamed == 2
        disk.is_full = False


async def test_after_a_commit_that_failed_the_next_request_is_refused(
    tmp_path: Path, no_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the disk says that it has room: it takes nothing, or fails to force what it took."""
    monkeypatch.setattr(spool_writer, "COMMIT_TIMEOUT_S", 0.05)
    is_broken = False
    write = Spool.write

    def fail(spool: Spool, payloads: list[bytes]) -> int:
        if is_broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(spool, payloads)

    monkeypatch.setattr(Spool, "write", fail)
    async with running_log(tmp_path, no_redis, closing_s=0.1, durability="sync") as log:
        is_broken = True
        with pytest.raises(StoreError, match="Input/output error"):
            await log.commit(make_record(0))
        with pytest.raises(StoreError, match="Input/output error"):
            log.check()
        is_broken = False
        await until(lambda: log.problem is None)


async def test_a_record_that_waits_for_the_disk_speaks_for_those_that_would_come(
    tmp_path: Path, no_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_full = True
    write = Spool.write

    def refuse(spool: Spool, payloads: list[bytes]) -> int:
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(spool, payloads)

    monkeypatch.setattr(Spool, "write", refuse)
    async with running_log(tmp_path, no_redis, closing_s=0.1, durability="sync") as log:
        committing = asyncio.create_task(log.commit(make_record(0)))
        await until(lambda: log.stats().last_error is not None)
        await until(lambda: log.problem is not None)
        for _ in range(3):
            with pytest.raises(StoreError, match="No space left"):
                log.check()
        is_full = False
        await committing
        await until(lambda: log.problem is None)


async def test_a_disk_that_hangs_is_too_slow(tmp_path: Path, no_redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_writer, "SLOW_S", 0.05)
    monkeypatch.setattr(spool_writer, "COMMIT_TIMEOUT_S", 0.05)
    async with running_log(tmp_path, no_redis, closing_s=0.1, durability="sync") as log:
        hanging = asyncio.Event()
        loop, write = asyncio.get_running_loop(), Spool.write

        def hang(spool: Spool, payloads: list[bytes]) -> int:
            asyncio.run_coroutine_threadsafe(hanging.wait(), loop).result(DEADLINE_S)
            return write(spool, payloads)

        monkeypatch.setattr(Spool, "write", hang)
        with pytest.raises(StoreError, match="too slow"):
            await log.commit(make_record(0))
        await until(lambda: log.problem is not None)
        with pytest.raises(StoreError, match="too slow"):
            log.check()
        hanging.set()
        await until(lambda: log.problem is None)


async def test_the_mode_that_does_not_wait_never_refuses(
    tmp_path: Path, no_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    async with running_log(tmp_path, no_redis, closing_s=0.1) as log:
        disk.is_full = True
        log.check()
        assert log.problem is None


@pytest.mark.parametrize("durability", DURABLE)
@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru"])
async def test_a_redis_that_evicts_is_refused_where_rows_are_promised(
    tmp_path: Path, redis_url: str, durability: str, policy: str
) -> None:
    log = DecisionLog(
        data_dir=tmp_path, redis_url=redis_url, config=LogConfig.model_validate({"durability": durability})
    )
    with (
        evicting_redis(redis_url, policy),
        pytest.raises(StoreError, match=rf"maxmemory-policy {policy}.; allowed: noeviction"),
    ):
        await log.start()
    await log.aclose()


async def test_a_redis_that_begins_to_evict_stops_the_modes_that_wait(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.decision_log.sink.BEAT_S", 0.05)
    async with running_log(tmp_path, redis_url, durability="sync") as log:
        with evicting_redis(redis_url, "allkeys-lfu"):
            await until(lambda: log.problem is not None)
            with pytest.raises(StoreError, match="maxmemory-policy allkeys-lfu"):
                log.check()
        await until(lambda: log.problem is None)


async def test_where_nothing_waits_an_evicting_redis_is_a_loud_line(
    tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with evicting_redis(redis_url, "allkeys-lru"), caplog.at_level(logging.ERROR):
        async with running_log(tmp_path, redis_url) as log:
            log.check()
    assert "maxmemory-policy allkeys-lru); allowed: noeviction" in caplog.text
