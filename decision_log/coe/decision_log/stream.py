"""The writing end of the Redis stream: at least once and in order, waiting while Redis refuses or the stream is full.

Records that are sent together are one entry, because Redis stores, delivers and deletes an entry at the same price
whatever its size. The entry has a mark that occurs nowhere in UTF-8, the number of records, their lengths, and the
records.

Only commands that Valkey and Redis 6.2 or newer share are used.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from coe.base.errors import reason_of
from coe.decision_log.redis_client import REDIS_ERRORS, TIMEOUT_S, connect

ADD_ALL = """
for i = 2, #ARGV do redis.call('XADD', KEYS[1], '*', ARGV[1], ARGV[i]) end
return redis.call('XLEN', KEYS[1])
"""
"""A script to add payloads as one command, which Redis executes or refuses as a whole, in order."""

GROUP = "coe-sql"
KEEPING_POLICY = "noeviction"
RECORD_FIELD = b"record"
STATUS_FIELD = b"status"
MARK, HEADER = b"\xc0\xe7", struct.Struct(">2sI")
GROUP_RECORDS = 256
"""Records in one command, and at most in one entry: about 0.1 ms of the event loop, so that answers do not wait."""
GROUPED_SHARE = 0.1
"""Share of `max_entries` records that may be in entries of several; the rest are single entries, of which fewer fit."""

MAX_WAIT_S = 20.0
"""Seconds in the stream after which decisions count as delayed. Entries of a dead consumer are claimed after 15 s."""

FIRST_DELAY_S = 0.05
MAX_DELAY_S = 2.0

if TYPE_CHECKING:
    from coe.decision_log.redis_client import RedisClient

logger = logging.getLogger(__name__)


def evicting(policy: str) -> str:
    return (
        f"Redis gives up decisions that it has taken when its memory is full (maxmemory-policy {policy}); "
        f"allowed: {KEEPING_POLICY}"
    )


async def eviction_policy(client: RedisClient) -> str | None:
    """Return the `maxmemory-policy` by which a server may lose data; None if it keeps everything or does not report.

    In a cluster it is that of the first such primary. Errors of commands pass through.
    """
    from redis.asyncio import Redis

    if isinstance(client, Redis):
        found: Any = [await client.info("memory")]
    else:
        found = [await client.info("memory", target_nodes=node) for node in client.get_primaries()]
    policies = [each.get("maxmemory_policy", KEEPING_POLICY) for each in found]
    return next((str(policy) for policy in policies if policy != KEEPING_POLICY), None)


async def oldest_s(client: RedisClient, stream: str) -> float:
    """Return the age in seconds of the oldest delivered entry that is not in SQL yet; 0 if there is none."""
    found: Any = await client.xpending(stream, GROUP)
    return max(0.0, time.time() - int(found["min"].split(b"-")[0]) / 1e3) if found["min"] else 0.0


def packed(payloads: Sequence[bytes]) -> bytes:
    """Encode several records as one value."""
    lengths = struct.pack(f">{len(payloads)}I", *map(len, payloads))
    return b"".join((HEADER.pack(MARK, len(payloads)), lengths, *payloads))


def unpacked(value: bytes) -> list[bytes]:
    """Return the records of an entry; the value itself if it is a single record or damaged."""
    if not value.startswith(MARK):
        return [value]
    try:
        count = HEADER.unpack_from(value)[1]
        lengths = struct.unpack_from(f">{count}I", value, HEADER.size)
    except struct.error:
        return [value]
    places = list(accumulate(lengths, initial=HEADER.size + 4 * count))
    return [value[start:end] for start, end in pairwise(places)] if places[-1] == len(value) else [value]


class Backoff:
    """Waits that double from `FIRST_DELAY_S` to `MAX_DELAY_S` until `reset`."""

    def __init__(self) -> None:
        self._delay_s = FIRST_DELAY_S

    async def wait(self) -> None:
        await asyncio.sleep(self._delay_s)
        self._delay_s = min(2 * self._delay_s, MAX_DELAY_S)

    def reset(self) -> None:
        self._delay_s = FIRST_DELAY_S


class DecisionStream:
    """The writing end of the stream.

    Args:
        redis_url: as `decision_log.redis_client.connect` takes it.
        name: key of the stream.
        max_entries: about how many records fill the stream; further payloads wait in the spool. Consumers delete what
            they
            have written, so trimming the stream would lose records.
        timeout_s: seconds until the connection is closed if Redis does not answer.
    """

    def __init__(self, redis_url: str, *, name: str, max_entries: int, timeout_s: float = TIMEOUT_S) -> None:
        self._redis = connect(redis_url, timeout_s=timeout_s)
        self._name = name
        self._max_groups = int(max_entries * GROUPED_SHARE / GROUP_RECORDS)
        self._max_entries = max_entries - self._max_groups * (GROUP_RECORDS - 1)
        self._length = 0  # when last heard of
        self.last_error: str | None = None
        self.evicts_by: str | None = None  # the policy by which Redis gives up what it has taken, as last heard of
        self.waits_s = 0.0  # of the oldest entry that a consumer has, as last heard of

    @property
    def eviction_problem(self) -> str | None:
        """A description of the server's wrong setting; None if there is none."""
        return None if self.evicts_by is None else evicting(self.evicts_by)

    @property
    def detour(self) -> str | None:
        """The place where decisions wait, and the reason; None if they reach SQL."""
        if self.last_error is not None:
            return f"decisions wait in the spool: Redis does not take them ({self.last_error})"
        if self.waits_s > MAX_WAIT_S:
            return f"decisions wait in the stream to be written to SQL, the oldest for {self.waits_s:.0f} s"
        return None

    async def look(self) -> None:
        """Read Redis' eviction policy and how long decisions have waited for SQL; keep the old values if it fails."""
        try:
            policy = await eviction_policy(self._redis)
            if policy is not None and policy != self.evicts_by:
                logger.error("%s", evicting(policy))
            self.evicts_by = policy
            self.waits_s = await oldest_s(self._redis, self._name)
        except REDIS_ERRORS:
            return

    async def send(self, payloads: Sequence[bytes], field: bytes = RECORD_FIELD) -> None:
        """Send payloads until every one is in the stream; a payload may arrive twice."""
        backoff = Backoff()
        while not await self.try_send(payloads, field):
            await backoff.wait()

    async def try_send(self, payloads: Sequence[bytes], field: bytes = RECORD_FIELD) -> bool:
        """Send payloads once, all or none unless the connection breaks midway; on False, see `last_error`."""
        try:
            if self._length >= self._max_entries:
                self._length = await self._redis.xlen(self._name)
                if self._length >= self._max_entries:
                    return self._refused(f"{self._length} entries are in the stream and in no database yet")
            if len(payloads) > 1 and self._length < self._max_groups:
                payloads = [packed(payloads)]
            self._length = await self._redis.eval(ADD_ALL, 1, self._name, field, *payloads)
        except REDIS_ERRORS as error:
            return self._refused(reason_of(error))
        if self.last_error is not None:
            logger.info("Redis takes decisions again")
        self.last_error = None
        return True

    def _refused(self, reason: str) -> bool:
        if self.last_error is None:
            logger.warning("decisions wait in the spool: Redis does not take them (%s)", reason)
        self.last_error = reason
        return False

    async def aclose(self) -> None:
        await self._redis.aclose()
