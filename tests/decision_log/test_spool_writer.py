"""The promise of `commit`: it returns when the record is on the disk, and raises when it does not get there."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from coe.base.errors import StoreError
from coe.decision_log import spool_writer as writer_module
from coe.decision_log.privacy import kept_fields
from coe.decision_log.sink import DecisionLog
from coe.decision_log.spool import Spool
from coe.router.config.log import LogConfig
from tests.decision_log.running_log import FullDisk, make_record, spooled
from tests.decision_log.running_log import running_log as usual_log
from tests.waiting import until

DURABLE = ("batched", "sync")


def running_log(data_dir: Path, **options: object) -> AbstractAsyncContextManager[DecisionLog]:
    """A log whose Redis is away, so that everything stays in the spool."""
    return usual_log(data_dir, f"unix://{data_dir}/none.sock", closing_s=0.1, **options)


class HeldDisk:
    """Lets a write to the spool return only while `is_free`; counts those that began."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_free = threading.Event()
        self.begun = 0
        write = Spool.write

        def held(spool: Spool, payloads: list[bytes]) -> int:
            count = write(spool, payloads)
            self.begun += 1
            self.is_free.wait()
            return count

        monkeypatch.setattr(Spool, "write", held)


@pytest.mark.parametrize("durability", DURABLE)
async def test_commit_returns_after_the_write_and_not_before(
    durability: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_log(tmp_path, durability=durability) as log:
        disk = HeldDisk(monkeypatch)
        committing = asyncio.create_task(log.commit(make_record(0)))
        await until(lambda: disk.begun > 0)
        assert len(spooled(tmp_path)) == 1
        assert not committing.done()
        disk.is_free.set()
        await committing


@pytest.mark.parametrize("durability", ["async", *DURABLE])
async def test_texts_are_redacted_off_the_event_loop(
    durability: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def noted(*arguments: object) -> dict[str, object]:
        threads.append(threading.current_thread().name)
        return kept_fields(*arguments)

    monkeypatch.setattr(writer_module, "kept_fields", noted)
    async with running_log(tmp_path, durability=durability, privacy="text") as log:
        log.append(make_record(0, text="mail to jo@example.org"))
        await until(lambda: len(spooled(tmp_path)) == 1)
    assert [name.startswith("coe-spool") for name in threads] == [True]


async def test_records_that_come_while_the_disk_is_busy_share_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_log(tmp_path, durability="sync") as log:
        await log.commit(make_record(0))
        disk = HeldDisk(monkeypatch)
        first = asyncio.create_task(log.commit(make_record(1)))
        await until(lambda: disk.begun == 1)
        others = [asyncio.create_task(log.commit(make_record(seq))) for seq in range(2, 40)]
        disk.is_free.set()
        await asyncio.gather(first, *others)
        assert disk.begun == 2
    assert len(spooled(tmp_path)) == 40


async def test_batched_makes_one_write_of_what_comes_within_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogConfig, "batch_ms", 1000.0)
    async with running_log(tmp_path, durability="batched") as log:
        disk = HeldDisk(monkeypatch)
        disk.is_free.set()
        await log.commit(make_record(0))
        before, committing = disk.begun, []
        for seq in range(1, 30):
            committing.append(asyncio.create_task(log.commit(make_record(seq))))
            await asyncio.sleep(0)  # one turn of the loop each: `sync` would make a group of them at once
        await asyncio.gather(*committing)
        assert disk.begun == before + 1


async def test_a_full_disk_holds_the_answer_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    async with running_log(tmp_path, durability="sync") as log:
        committing = asyncio.create_task(log.commit(make_record(0)))
        await until(lambda: log.stats().last_error == "spool: No space left on device")
        assert not committing.done()
        disk.is_full = False
        await committing
    assert len(spooled(tmp_path)) == 1


async def test_a_disk_that_stays_full_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDisk(monkeypatch)
    monkeypatch.setattr(writer_module, "COMMIT_TIMEOUT_S", 0.05)
    async with running_log(tmp_path, durability="sync") as log:
        log.append(make_record(0))
        await until(lambda: "No space left" in (log.stats().last_error or ""))
        with pytest.raises(StoreError, match=r"cannot be written.*No space left") as caught:
            await log.commit(make_record(1))
        assert caught.value.is_retryable


async def test_while_the_disk_is_full_redis_makes_a_record_safe(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    async with usual_log(tmp_path, redis_url, durability="sync") as log:
        await log.commit(make_record(0))
        assert log.stats().streamed == 1
        disk.is_full = False


async def test_a_full_queue_refuses_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogConfig, "queue_max_records", 100)
    FullDisk(monkeypatch)
    async with running_log(tmp_path, durability="sync") as log:
        log.append(make_record(0))
        await until(lambda: log.stats().last_error is not None)
        for seq in range(1, 101):
            log.append(make_record(seq))
        with pytest.raises(StoreError, match="takes no more"):
            await log.commit(make_record(101))


@pytest.mark.parametrize(
    ("changes", "problem"), [({"text": "word " * 300_000}, "too large"), ({"session_id": "\ud800"}, "written as JSON")]
)
async def test_a_record_that_cannot_be_kept_is_told(changes: dict[str, str], problem: str, tmp_path: Path) -> None:
    async with running_log(tmp_path, durability="sync", spool_max_mb=1, privacy="text") as log:
        with pytest.raises(StoreError, match=problem):
            await log.commit(make_record(0).model_copy(update=changes))
        await log.commit(make_record(1))


async def test_a_client_that_leaves_while_it_waits_leaves_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_log(tmp_path, durability="sync") as log:
        disk = HeldDisk(monkeypatch)
        leaving = asyncio.create_task(log.commit(make_record(0)))
        await until(lambda: disk.begun == 1)
        leaving.cancel()
        disk.is_free.set()
        await log.commit(make_record(1))
    assert len(spooled(tmp_path)) == 2
