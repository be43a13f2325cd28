"""The reading end of the stream: its entries and their contents."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from coe.base.redis_names import DEAD_LETTERS
from coe.decision_log.payloads import Logged, from_payload
from coe.decision_log.redis_client import same_slot
from coe.decision_log.replica_status import ReplicaStatus
from coe.decision_log.stream import GROUP, RECORD_FIELD, STATUS_FIELD, unpacked

if TYPE_CHECKING:
    from coe.decision_log.redis_client import RedisClient

PAGE_ENTRIES = 100

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One record or status of a stream entry, which may have several; `payload` is None if the entry was trimmed."""

    id: bytes
    payload: bytes | None
    field: bytes = RECORD_FIELD


Content = Logged | ReplicaStatus


def entries_of(rows: Any) -> list[Entry]:
    """Return the entries of a reply; Redis 6.2 claims deleted entries as nil, newer versions leave them out."""
    return [entry for row in rows if row[0] is not None for entry in parts_of(row[0], row[1])]


def parts_of(entry_id: bytes, fields: dict[bytes, bytes] | None) -> list[Entry]:
    if not fields:
        return [Entry(entry_id, None)]
    if STATUS_FIELD in fields:
        return [Entry(entry_id, fields[STATUS_FIELD], STATUS_FIELD)]
    return [Entry(entry_id, payload) for payload in unpacked(fields.get(RECORD_FIELD, b""))]


def content_of(entry: Entry) -> Content | None:
    """Return the content of an entry; None if it is gone or foreign."""
    if entry.payload is None:
        return None
    try:
        if entry.field == STATUS_FIELD:
            return ReplicaStatus.model_validate_json(entry.payload, extra="ignore")
        return from_payload(entry.payload)
    except ValidationError as error:
        kinds = sorted({fault["type"] for fault in error.errors(include_input=False, include_url=False)})
        logger.error("entry %s is not a decision (%s)", entry.id, ", ".join(kinds))
        return None


async def waiting_entries(client: RedisClient, stream: str) -> AsyncIterator[Entry]:
    """Yield entries that are not in SQL yet, undelivered ones first; may raise RedisError."""
    if not await client.exists(stream):
        return
    groups: Any = await client.xinfo_groups(stream)
    ours = next((group for group in groups if group["name"] == GROUP.encode()), None)
    async for entry in entries_after(client, stream, b"0-0" if ours is None else ours["last-delivered-id"]):
        yield entry
    if ours is not None:
        async for entry in pending_entries(client, stream):
            yield entry


async def pending_entries(client: RedisClient, stream: str) -> AsyncIterator[Entry]:
    """Yield entries that are delivered and unacknowledged, except those that were trimmed meanwhile."""
    start = b"-"
    while True:
        rows: Any = await client.xpending_range(stream, GROUP, start, "+", PAGE_ENTRIES)
        async with client.pipeline(transaction=False) as pipeline:
            for row in rows:
                pipeline.xrange(stream, min=row["message_id"], max=row["message_id"])
            found: Any = await pipeline.execute()
        for entries in found:
            for entry in entries_of(entries):
                yield entry
        if len(rows) < PAGE_ENTRIES:
            return
        start = b"(" + rows[-1]["message_id"]


async def dead_entries(client: RedisClient, stream: str) -> AsyncIterator[Entry]:
    """Yield entries that were given up; may raise RedisError."""
    async for entry in entries_after(client, dead_stream(stream), b"0-0"):
        yield entry


async def entries_after(client: RedisClient, stream: str, last: bytes) -> AsyncIterator[Entry]:
    """Yield the entries after that id; may raise RedisError."""
    next_after: Any = last
    while rows := await client.xrange(stream, min=b"(" + next_after, count=PAGE_ENTRIES):
        for entry in entries_of(rows):
            yield entry
        next_after = rows[-1][0]


def dead_stream(stream: str) -> str:
    """Return the key of the dead-letter stream, in the same cluster slot."""
    return same_slot(stream, DEAD_LETTERS)
