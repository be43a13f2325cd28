"""Entries of the stream as they are read back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from gateway.decision_log.stream import RECORD_FIELD
from router.types import DecisionRecord

if TYPE_CHECKING:
    from redis.asyncio import Redis

GROUP = "coe-sql"

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One stream entry; `payload` is None when the stream was trimmed under it."""

    id: bytes
    payload: bytes | None


def entries_of(rows: Any) -> list[Entry]:
    """Entries of a reply. Redis 6.2 claims deleted entries as nil, others leave them out."""
    return [Entry(row[0], row[1].get(RECORD_FIELD, b"") if row[1] else None) for row in rows if row[0] is not None]


def record_of(entry: Entry) -> DecisionRecord | None:
    """The decision in an entry; None when it is gone or is none of ours."""
    if entry.payload is None:
        return None
    try:
        return DecisionRecord.model_validate_json(entry.payload)
    except ValidationError as error:
        kinds = sorted({fault["type"] for fault in error.errors(include_input=False, include_url=False)})
        logger.error("entry %s is no decision (%s)", entry.id, ", ".join(kinds))
        return None


async def waiting_in(client: Redis, stream: str) -> tuple[int, int]:
    """Entries of the stream that are not in SQL yet, and dead letters. Raises RedisError."""
    dead = await client.xlen(f"{stream}:dead")
    if not await client.exists(stream):
        return 0, dead
    groups: Any = await client.xinfo_groups(stream)
    ours = next((group for group in groups if group["name"] == GROUP.encode()), None)
    if ours is None:
        return await client.xlen(stream), dead
    waiting, last = int(ours["pending"]), ours["last-delivered-id"]
    while rows := await client.xrange(stream, min=b"(" + last, count=1000):
        waiting += len(rows)
        last = rows[-1][0]
    return waiting, dead
