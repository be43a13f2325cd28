from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from redis import Redis

from coe.decision_log.erase import in_spools
from coe.decision_log.leftovers import send_leftovers, send_next
from coe.decision_log.spool import Spool
from coe.decision_log.sql_removal import Found
from coe.decision_log.stream import DecisionStream

STREAM = "coe:decisions"


def leave(folder: Path, payload: bytes) -> None:
    spool = Spool(folder, max_bytes=1_000_000)
    spool.open()
    spool.write([payload])
    spool.close()


async def test_a_spool_that_cannot_be_read_holds_up_no_other_and_is_sent_once_it_can(
    tmp_path: Path, redis_url: str
) -> None:
    for name in ("bad", "good"):
        leave(tmp_path / name, name.encode())
    broken = tmp_path / "bad" / "spool.db"
    content = broken.read_bytes()
    broken.write_bytes(b"\0" * len(content))
    stream = DecisionStream(redis_url, name=STREAM, max_entries=1000)
    with Redis.from_url(redis_url) as client:
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                await send_leftovers(tmp_path, stream)
            assert [fields[b"record"] for _, fields in client.xrange(STREAM)] == [b"good"]
        broken.write_bytes(content)
        assert await send_leftovers(tmp_path, stream) == 1
        assert [fields[b"record"] for _, fields in client.xrange(STREAM)] == [b"good", b"bad"]
    assert list(tmp_path.iterdir()) == []
    await stream.aclose()


async def test_what_is_erased_while_redis_is_away_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, yours = b"mine" * 20, b"yours" * 20
    spool = Spool(tmp_path / "r", max_bytes=1_000_000)
    spool.open()
    spool.write([yours, mine, yours])
    stream = DecisionStream("redis://127.0.0.1:1", name=STREAM, max_entries=1000)
    tried = list[Sequence[bytes]]()

    async def try_send(payloads: Sequence[bytes]) -> bool:
        tried.append(payloads)
        if len(tried) == 1:
            in_spools(tmp_path, lambda payload: Found("d", "r", 1) if payload == mine else None)
        return len(tried) == 2

    monkeypatch.setattr(stream, "try_send", try_send)
    assert await send_next(spool, stream) == 3
    assert tried == [[yours, mine, yours], [yours, b'{"erased":true,"replica":"r","seq":1}', yours]]
    assert spool.pending == 0
    spool.close()
    await stream.aclose()
