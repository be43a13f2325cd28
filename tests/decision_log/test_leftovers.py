from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from coe.decision_log.leftovers import send_leftovers
from coe.decision_log.spool import Spool
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
