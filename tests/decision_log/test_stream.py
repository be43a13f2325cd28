from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis import Redis

from coe.base.errors import ConfigError
from coe.decision_log.redis_client import connect
from coe.decision_log.stream import GROUP, GROUP_RECORDS, Backoff, DecisionStream
from coe.decision_log.stream_entries import entries_of
from coe_offline.redis_server import RedisServer


@asynccontextmanager
async def stream_to(url: str, **options: float) -> AsyncIterator[DecisionStream]:
    stream = DecisionStream(url, name="s", max_entries=int(options.pop("max_entries", 1000)), **options)
    yield stream
    await stream.aclose()


def payloads_in(url: str) -> list[bytes]:
    with Redis.from_url(url) as client:
        return [fields[b"record"] for _, fields in client.xrange("s")]


async def test_payloads_arrive_in_order(redis_url: str) -> None:
    async with stream_to(redis_url) as stream:
        await stream.send([b"a", b"b"])
        await stream.send([b"c"])
        assert payloads_in(redis_url) == [b"a", b"b", b"c"]
        assert stream.last_error is None


async def test_records_that_are_sent_together_are_one_entry_while_the_stream_is_short(redis_url: str) -> None:
    async with stream_to(redis_url, max_entries=20 * GROUP_RECORDS) as stream:
        for _ in range(3):
            await stream.send([b"a", b"b"])
    with Redis.from_url(redis_url) as client:
        assert client.xlen("s") == 4
        assert [entry.payload for entry in entries_of(client.xrange("s"))] == [b"a", b"b"] * 3


async def test_a_full_stream_takes_nothing_until_a_consumer_has_made_room(redis_url: str) -> None:
    async with stream_to(redis_url, max_entries=1000) as stream:
        for _ in range(10):
            await stream.send([b"old"] * 100)
        assert not await stream.try_send([b"new"])
        assert stream.last_error == "1000 entries are in the stream and in no database yet"
        sending = asyncio.create_task(stream.send([b"new"]))
        with Redis.from_url(redis_url) as client:
            first = client.xrange("s", count=1)[0][0]
            client.xdel("s", first)
        await sending
        assert stream.last_error is None
    assert payloads_in(redis_url) == [b"old"] * 999 + [b"new"]


async def test_entries_of_several_records_count_as_many(redis_url: str) -> None:
    most, group = 20 * GROUP_RECORDS, [b"x"] * GROUP_RECORDS
    async with stream_to(redis_url, max_entries=most) as stream:
        while await stream.try_send(group):
            pass
    with Redis.from_url(redis_url) as client:
        assert most <= len(entries_of(client.xrange("s"))) < most + GROUP_RECORDS


async def test_decisions_that_sql_does_not_take_are_seen_from_the_stream(redis_url: str) -> None:
    async with stream_to(redis_url) as stream:
        await stream.look()
        assert stream.detour is None
        with Redis.from_url(redis_url) as client:
            client.xadd("s", {"record": b"a"}, id=f"{int(time.time() * 1000) - 60_000}-0")
            client.xgroup_create("s", GROUP, id="0")
            entry = client.xreadgroup(GROUP, "c", {"s": ">"})[0][1][0][0]
            await stream.look()
            assert stream.waits_s >= 60.0
            told = "decisions wait in the stream to be written to SQL, the oldest for"
            assert stream.detour == f"{told} {stream.waits_s:.0f} s"
            client.xack("s", GROUP, entry)
        await stream.look()
        assert stream.detour is None


async def test_out_of_memory_refuses_the_batch_as_a_whole(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        async with stream_to(redis_url) as stream:
            client.config_set("maxmemory", "1")
            try:
                assert not await stream.try_send([b"a", b"b"])
                assert "OutOfMemory" in (stream.last_error or "")
                sending = asyncio.create_task(stream.send([b"a", b"b"]))
            finally:
                client.config_set("maxmemory", "0")
            await sending
            assert stream.last_error is None
    assert payloads_in(redis_url) == [b"a", b"b"]


async def test_read_only_is_waited_out(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        async with stream_to(redis_url) as stream:
            client.replicaof("127.0.0.1", 1)
            try:
                assert not await stream.try_send([b"a"])
                assert "ReadOnly" in (stream.last_error or "")
            finally:
                client.replicaof("NO", "ONE")
            await stream.send([b"a"])
    assert payloads_in(redis_url) == [b"a"]


@pytest.mark.parametrize("reply", ["LOADING Redis is loading", "MISCONF disk", "NOAUTH Authentication required."])
async def test_refusals_are_tried_again(reply: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(f"-{reply}\r\n".encode() * 4)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with stream_to(f"redis://127.0.0.1:{port}") as stream:
        assert not await stream.try_send([b"a"])
        assert stream.last_error is not None
    server.close()


async def test_nobody_there(tmp_path: Path) -> None:
    async with stream_to(f"unix://:secret@{tmp_path}/none.sock") as stream:
        assert not await stream.try_send([b"a"])
        assert "ConnectionError" in (stream.last_error or "")
        assert "secret" not in (stream.last_error or "")


async def test_a_paused_server_is_given_up_and_used_when_it_goes_on(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    await server.start()
    async with stream_to(server.url, timeout_s=0.1) as stream:
        await stream.send([b"a"])
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert not await stream.try_send([b"b"])
            assert "Timeout" in (stream.last_error or "")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await stream.send([b"b"])
    arrived = payloads_in(server.url)
    assert list(dict.fromkeys(arrived)) == [b"a", b"b"]  # each once or twice: at least once
    await server.stop()


def test_wrong_url() -> None:
    with pytest.raises(ConfigError, match="REDIS_URL is not a Redis URL; allowed: redis://") as caught:
        connect("http://me:secret@host")
    assert "secret" not in str(caught.value)


async def test_waits_double_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(delay_s: float) -> None:
        waits.append(delay_s)

    monkeypatch.setattr("coe.decision_log.stream.asyncio.sleep", note)
    monkeypatch.setattr("coe.decision_log.stream.FIRST_DELAY_S", 1.0)
    monkeypatch.setattr("coe.decision_log.stream.MAX_DELAY_S", 3.0)
    backoff = Backoff()
    for _ in range(4):
        await backoff.wait()
    backoff.reset()
    await backoff.wait()
    assert waits == [1.0, 2.0, 3.0, 3.0, 1.0]
