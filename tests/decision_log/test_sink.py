from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor
from pathlib import Path

import pytest
from redis import Redis

from coe.base.errors import ConfigError, StoreError
from coe.decision_log import sink as sink_module
from coe.decision_log import stream as stream_module
from coe.decision_log.leftovers import send_next
from coe.decision_log.privacy import keyed_hash, load_key
from coe.decision_log.replica_status import ReplicaState, ReplicaStatus, read_status
from coe.decision_log.sink import DecisionLog, LogStats, new_replica
from coe.decision_log.spool import Spool
from coe.decision_log.stream import GROUP, DecisionStream
from coe.router.config.log import LogConfig, PrivacyLevel
from coe_offline.redis_server import RedisServer
from tests.decision_log.running_log import append_new, make_record, running_log, streamed
from tests.waiting import until


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_DELAY_S", 0.05)
    monkeypatch.setattr(sink_module, "LEFTOVERS_EVERY_S", 0.05)
    monkeypatch.setattr(sink_module, "SEND_LINGER_S", 0.0)


def statuses(redis_url: str) -> list[ReplicaStatus]:
    """Entries of the stream about replicas, in its order."""
    with Redis.from_url(redis_url) as client:
        entries = [fields for _, fields in client.xrange("coe:decisions")]
    return [ReplicaStatus.model_validate_json(fields[b"status"]) for fields in entries if b"status" in fields]


async def test_records_reach_the_stream_in_order(tmp_path: Path, redis_url: str) -> None:
    async with running_log(tmp_path, redis_url) as log:
        append_new(log, 5000)
        await until(lambda: log.stats().pending == 0)
        assert log.stats() == LogStats(appended=5000, spooled=5000, streamed=5000)
        assert streamed(redis_url) == [(log.replica, seq) for seq in range(5000)]
    assert not (tmp_path / "spool" / log.replica).exists()


async def test_closing_flushes_what_was_just_appended(tmp_path: Path, redis_url: str) -> None:
    async with running_log(tmp_path, redis_url) as log:
        append_new(log, 300)
    assert len(streamed(redis_url)) == 300
    assert log.stats().pending == 0


async def test_a_life_is_told_at_its_start_while_it_goes_on_and_at_its_end(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "BEAT_S", 0.01)
    async with running_log(tmp_path, redis_url) as log:
        await until(lambda: bool(statuses(redis_url)))
        append_new(log, 3)
        await until(lambda: statuses(redis_url)[-1].decisions == 3)
    told = [(status.replica, status.state, status.decisions) for status in statuses(redis_url)]
    assert told[0] == (log.replica, ReplicaState.RUNNING, 0)
    assert told[-1] == (log.replica, ReplicaState.ENDED, 3)
    assert [state for _, state, _ in told].count(ReplicaState.ENDED) == 1


async def test_an_end_that_redis_did_not_hear_stays_in_the_spool_for_the_next_status(
    tmp_path: Path, redis_url: str
) -> None:
    server = RedisServer(tmp_path / "redis")
    await server.start()
    async with running_log(tmp_path, server.url) as log:
        append_new(log, 2)
        await until(lambda: log.stats().pending == 0)
        await server.stop()
    status = read_status(tmp_path / "spool" / log.replica, is_alive=False, at=0.0)
    assert (status.decisions, status.state) == (2, ReplicaState.ENDED)
    async with running_log(tmp_path, redis_url):
        await until(lambda: any(told.replica == log.replica for told in statuses(redis_url)))
        await until(lambda: not (tmp_path / "spool" / log.replica).exists())


@pytest.mark.parametrize("durability", ["async", "batched", "sync"])
async def test_the_count_of_decisions_stands_on_the_disk(durability: str, tmp_path: Path, redis_url: str) -> None:
    """In `async` before the record is: what a kill takes from memory is counted."""
    async with running_log(tmp_path, redis_url, durability=durability) as log:
        folder = tmp_path / "spool" / log.replica
        for _ in range(3):
            if log.is_durable:
                await log.commit(make_record(log.next_seq(), log.replica))
            else:
                log.append(make_record(log.next_seq(), log.replica))
        status = read_status(folder, is_alive=True, at=0.0)
        assert status.decisions == 3
        assert log.stats().spooled == (3 if log.is_durable else 0)


async def test_redis_away_at_start_then_back(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    async with running_log(tmp_path, server.url) as log:
        append_new(log, 200)
        await until(lambda: log.stats().spooled == 200 and log.stats().last_error is not None)
        assert log.stats().pending == 200
        assert "spool: Redis does not take them (ConnectionError" in (log.detour or "")
        await server.start()
        await until(lambda: log.stats().pending == 0)
        assert (log.stats(), log.detour) == (LogStats(appended=200, spooled=200, streamed=200), None)
        assert streamed(server.url) == [(log.replica, seq) for seq in range(200)]
    await server.stop()


async def test_its_figures_say_that_sql_takes_nothing(tmp_path: Path, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.xgroup_create("coe:decisions", GROUP, id="0", mkstream=True)
        client.xadd("coe:decisions", {"status": b"a"}, id=f"{int(time.time() * 1000) - 60_000}-0")
        client.xreadgroup(GROUP, "c", {"coe:decisions": ">"})
    async with running_log(tmp_path, redis_url) as log:
        assert "to be written to SQL" in (log.stats().last_error or "")


async def test_kill_9_of_redis_in_the_middle(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    await server.start()
    async with running_log(tmp_path, server.url) as log:
        append_new(log, 300)
        await until(lambda: log.stats().streamed > 0)
        os.kill(server.pid, signal.SIGKILL)
        append_new(log, 300)
        await until(lambda: log.stats().pending == 0)
        assert log.stats().dropped == 0
    arrived = streamed(server.url)
    assert set(arrived) == {(log.replica, seq) for seq in range(600)}
    first_arrivals = list(dict.fromkeys(arrived))
    assert first_arrivals == sorted(first_arrivals, key=lambda row: row[1])
    await server.stop()


async def test_what_stays_in_the_spool_is_sent_by_the_next_status(tmp_path: Path, redis_url: str) -> None:
    first = DecisionLog(data_dir=tmp_path, redis_url=f"unix://{tmp_path}/none.sock", config=LogConfig())
    await first.start()
    append_new(first, 150)
    await first.aclose(timeout_s=0.1)
    assert (first.stats().dropped, first.stats().pending) == (0, 150)
    async with running_log(tmp_path, redis_url) as second:
        await until(lambda: len(streamed(redis_url)) == 150)
        await until(lambda: [path.name for path in (tmp_path / "spool").iterdir()] == [second.replica])
    assert streamed(redis_url) == [(first.replica, seq) for seq in range(150)]


async def test_kill_9_of_the_gateway_loses_nothing_that_was_spooled(tmp_path: Path, redis_url: str) -> None:
    program = (
        "import asyncio, os, pathlib, signal, sys\n"
        "from coe.decision_log.sink import DecisionLog\n"
        "from coe.router.config.composition import LogConfig\n"
        "from coe.decision_log.decision_record import DecisionRecord\n"
        "async def main():\n"
        "    log = DecisionLog(data_dir=pathlib.Path(sys.argv[1]), redis_url='unix:///none.sock', config=LogConfig())\n"
        "    await log.start()\n"
        "    record = DecisionRecord.model_validate_json(sys.argv[2])\n"
        "    for _ in range(250):\n"
        "        log.append(record.model_copy(update={'seq': log.next_seq(), 'replica': log.replica}))\n"
        "    while log.stats().spooled < 250:\n"
        "        await asyncio.sleep(0.01)\n"
        "    print(log.replica, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), make_record(0).model_dump_json()]
    killed = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    async with running_log(tmp_path, redis_url):
        await until(lambda: len(streamed(redis_url)) == 250)
    assert streamed(redis_url) == [(killed.stdout.strip(), seq) for seq in range(250)]


async def test_two_replicas_in_one_data_folder(tmp_path: Path, redis_url: str) -> None:
    async with running_log(tmp_path, redis_url) as one, running_log(tmp_path, redis_url) as other:
        assert one.replica != other.replica
        append_new(one, 100)
        append_new(other, 100)
        await until(lambda: one.stats().pending == other.stats().pending == 0)
    expected = {(log.replica, seq) for log in (one, other) for seq in range(100)}
    assert set(streamed(redis_url)) == expected
    assert len(streamed(redis_url)) == 200


async def test_no_text_leaves_the_process_at_level_hash(tmp_path: Path, redis_url: str) -> None:
    async with running_log(tmp_path, f"unix://{tmp_path}/none.sock", closing_s=0.1, privacy=PrivacyLevel.HASH) as log:
        append_new(log, 1, text="canary words")
        await until(lambda: log.stats().spooled == 1)
        spooled = b"".join(path.read_bytes() for path in (tmp_path / "spool").rglob("spool.db*"))
        assert keyed_hash("canary words", load_key(tmp_path)).encode() in spooled
        assert b"canary" not in spooled


async def test_append_after_closing_is_counted_as_lost(tmp_path: Path, redis_url: str) -> None:
    async with running_log(tmp_path, redis_url) as log:
        pass
    log.append(make_record(0))
    assert (log.stats().appended, log.stats().dropped) == (1, 1)


async def test_a_decision_that_never_became_safe_is_no_loss_in_the_modes_that_wait(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_log(tmp_path, redis_url, durability="sync") as log:
        monkeypatch.setattr(Spool, "write", refuse)
        monkeypatch.setattr("coe.decision_log.spool_writer.COMMIT_TIMEOUT_S", 0.05)
        monkeypatch.setattr(log._stream, "try_send", lambda *_: asyncio.sleep(0, False))
        with pytest.raises(StoreError):
            await log.commit(make_record(log.next_seq(), log.replica))
        status = read_status(tmp_path / "spool" / log.replica, is_alive=True, at=0.0)
        assert status.decisions == 0


def refuse(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_closing_before_starting(tmp_path: Path, redis_url: str) -> None:
    log = DecisionLog(data_dir=tmp_path, redis_url=redis_url, config=LogConfig())
    await log.aclose()
    assert log.stats() == LogStats()


async def test_a_fault_in_a_worker_is_visible_and_survived(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real_send = send_next
    faults = [RuntimeError("unforeseen")]

    async def send(spool: Spool, stream: DecisionStream, executor: Executor | None = None) -> int:
        if faults:
            raise faults.pop()
        return await real_send(spool, stream, executor)

    monkeypatch.setattr(sink_module, "send_next", send)
    async with running_log(tmp_path, redis_url) as log:
        append_new(log, 5)
        await until(lambda: log.stats().last_error == "RuntimeError: unforeseen")
        await until(lambda: log.stats() == LogStats(appended=5, spooled=5, streamed=5))
    assert "continues after a fault" in caplog.text


async def test_a_spool_that_cannot_be_made_is_an_error_at_start(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "spool").write_text("")
    log = DecisionLog(data_dir=tmp_path, redis_url=redis_url, config=LogConfig())
    with pytest.raises(StoreError, match="cannot be made"):
        await log.start()
    await log.aclose()


def test_a_wrong_url_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="REDIS_URL"):
        DecisionLog(data_dir=tmp_path, redis_url="nonsense", config=LogConfig())


def test_replica_names_are_safe_and_unique() -> None:
    names = {new_replica() for _ in range(50)}
    assert len(names) == 50
    assert all(name.replace("-", "").isalnum() for name in names)
