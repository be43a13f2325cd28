"""A decision log that runs, for tests, and what it wrote."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from redis import Redis

from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.sink import DecisionLog
from coe.decision_log.spool import Spool, spool_folders, unsent_payloads
from coe.decision_log.stream import RECORD_FIELD
from coe.decision_log.stream_entries import entries_of
from coe.router.config.log import LogConfig
from coe.router.prices.usage import Usage
from tests.logged import answered, decision_of
from tests.waiting import DEADLINE_S


def make_record(seq: int, replica: str = "r1", text: str | None = None) -> DecisionRecord:
    return answered(
        f"{replica}-{seq}",
        seq,
        decision_of("coder", "code", router_version="v1"),
        request_id=f"req-{seq}",
        replica=replica,
        at=1_700_000_000.25 + seq,
        usage=Usage(prompt_tokens=3, completion_tokens=5),
        latency_ms=12.5,
        text=text,
    )


@asynccontextmanager
async def running_log(
    data_dir: Path, redis_url: str, *, closing_s: float = DEADLINE_S, **options: object
) -> AsyncIterator[DecisionLog]:
    log = DecisionLog(data_dir=data_dir, redis_url=redis_url, config=LogConfig.model_validate(options))
    await log.start()
    yield log
    await log.aclose(timeout_s=closing_s)


@contextmanager
def evicting_redis(redis_url: str, policy: str) -> Iterator[None]:
    """That Redis evicts by a policy for as long as the block runs."""
    with Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", policy)
        try:
            yield
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def append_new(log: DecisionLog, count: int, **changes: str) -> None:
    for _ in range(count):
        log.append(make_record(log.next_seq(), log.replica, **changes))


def streamed(redis_url: str) -> list[tuple[str, int]]:
    """Replica and sequence number of every record, in the order of the stream."""
    with Redis.from_url(redis_url) as client:
        entries = entries_of(client.xrange("coe:decisions"))
    rows = [json.loads(entry.payload or b"") for entry in entries if entry.field == RECORD_FIELD]
    return [(row["replica"], row["seq"]) for row in rows]


def spooled(data_dir: Path) -> list[bytes]:
    """What waits in all spools of a data folder."""
    return [payload for folder in spool_folders(data_dir / "spool") for payload in unsent_payloads(folder)]


class FullDisk:
    """Makes every spool refuse writes while `is_full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        real_write = Spool.write

        def write(spool: Spool, payloads: Sequence[bytes]) -> int:
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real_write(spool, payloads)

        monkeypatch.setattr(Spool, "write", write)
