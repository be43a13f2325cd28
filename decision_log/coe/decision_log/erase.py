"""Erasing a subject wherever its decisions are: SQL, stream, dead letters, spools of this machine; and cached answers.

SQL comes first, so a decision that is still on its way cannot get in. What is left of one in a spool is its
number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coe.base.redis_names import CACHED_ANSWERS, CACHED_FROM
from coe.decision_log.database import Database
from coe.decision_log.payloads import json_line
from coe.decision_log.privacy import (
    MAX_SEARCH_CHARS,
    SESSION_HEADERS,
    keyed_hash,
    named_session,
    session_hash,
    session_of,
)
from coe.decision_log.redis_client import RedisError
from coe.decision_log.spool import overwrite, spool_folders
from coe.decision_log.sql_removal import Found, Removal, Removed, found_of
from coe.decision_log.stream import RECORD_FIELD, packed
from coe.decision_log.stream_entries import Erased, dead_stream, entries_after, entries_of
from coe.router.gateway_config import GatewayConfig
from coe.router.types import ask_in, cap

if TYPE_CHECKING:
    from coe.decision_log.redis_client import RedisClient


REWRITE_TIMEOUT_S = 60.0
POLL_S = 0.05

REPLACE = """
if redis.call('XDEL', KEYS[1], ARGV[1]) == 1 and ARGV[3] then redis.call('XADD', KEYS[1], '*', ARGV[2], ARGV[3]) end
"""
"""One command: an entry that a consumer has written and deleted since it was read does not come back."""

Match = Callable[[bytes], Found | None]


@dataclass(frozen=True, slots=True)
class Erasure:
    """Amounts that were erased, by place."""

    sql: Removed
    in_stream: int
    in_spools: int


def stored_forms(subject: str, key: bytes) -> frozenset[str]:
    """Names that the log may have for a subject: a stored id as it is; the name of a session (with keys `TEAM/NAME`),
    or a text, by its keyed hash.

    A name in a header is read as the gateway reads it, and of a text what it keeps of an ask or of a search.

    Args:
        key: of this data folder's hashes; other data folders have other keys.
    """
    subject = subject.encode("utf-8", "replace").decode()  # an argument may not be UTF-8; everything stored is
    team, _, name = subject.partition("/")
    sessions = {*names_of(subject), *(session_of(team, each) for each in names_of(name))}
    texts = {subject, subject[:MAX_SEARCH_CHARS], cap(ask_in(subject), GatewayConfig.max_text_chars)}
    hashes = {session_hash(name, key) for name in sessions} | {keyed_hash(text, key) for text in texts}
    return frozenset({subject, *hashes})


def names_of(session: str) -> set[str]:
    """Names that the log may have for a session, from a header and from a field of a body."""
    return {f"named:{session}", named_session({SESSION_HEADERS[0]: session.encode()}) or f"named:{session}"}


async def erase(
    subjects: Collection[str],
    root: Path,
    client: RedisClient,
    stream: str,
    database: Database,
    at: float,
) -> Erasure:
    """Erases what was decided up to `at`; again is harmless.

    Args:
        subjects: stored key ids, session ids and text hashes.
        root: folder of this machine's spools.
        at: Unix seconds.

    Raises:
        RedisError, OSError, StoreError: something does not answer; what was done stays done, and can be done again.
    """

    def match(payload: bytes) -> Found | None:
        return found_of(json_line(payload), subjects, at)

    async def entries_in(name: str) -> list[tuple[bytes, Found]]:
        return [
            (entry.id, decision)
            async for entry in entries_after(client, name, b"0-0")
            if (decision := match(entry.payload or b"")) is not None
        ]

    removal = Removal(database)
    gone = await asyncio.to_thread(removal.erase, subjects, at)
    spooled = await asyncio.to_thread(in_spools, root, match)
    streams = {name: await entries_in(name) for name in (stream, dead_stream(stream))}  # delivered or not
    streamed = [decision for entries in streams.values() for _, decision in entries]
    # Noted before they are deleted, so that every number is accounted for. Feedback on them may be in SQL already.
    on_their_way = await asyncio.to_thread(removal.remove, [*spooled, *streamed], reason="erased", at=at)
    for name, entries in streams.items():
        for entry_id in {entry_id for entry_id, _ in entries}:
            await delete(client, name, entry_id, match)
    await forget_answers(client)
    await rewrite_file(client)
    return Erasure(gone + Removed(feedback=on_their_way.feedback), len(streamed), len(spooled))


async def delete(client: RedisClient, stream: str, entry_id: bytes, match: Match) -> None:
    """Deletes an entry; those of its records that do not match become another one."""
    records = [entry.payload or b"" for entry in entries_of(await client.xrange(stream, entry_id, entry_id))]
    kept = [payload for payload in records if match(payload) is None]
    await client.eval(REPLACE, 1, stream, entry_id, RECORD_FIELD, *([packed(kept)] if kept else []))


async def forget_answers(client: RedisClient) -> None:
    """Empties the cache of answers: whose they are is known by decisions, and not of all that are on their way."""
    for kind in (CACHED_ANSWERS, CACHED_FROM):
        async for name in client.scan_iter(match=f"{kind}*", count=1000):
            await client.unlink(name)


async def rewrite_file(client: RedisClient) -> None:
    """Makes a Redis that keeps an append-only file rewrite it, without what was deleted.

    A cluster, or a Redis that does not let us, does so by its own rules.
    """
    from redis.asyncio import Redis

    if not isinstance(client, Redis):
        return
    with suppress(RedisError, TimeoutError):
        await client.bgrewriteaof()
        async with asyncio.timeout(REWRITE_TIMEOUT_S):
            while is_rewriting(await client.info("persistence")):
                await asyncio.sleep(POLL_S)


def is_rewriting(info: Mapping[str, object]) -> bool:
    return any(info.get(name) for name in ("aof_rewrite_in_progress", "aof_rewrite_scheduled"))


def in_spools(root: Path, match: Match) -> list[Found]:
    """Overwrites the decisions in every spool under `root` that are not sent, and returns them. Raises OSError."""
    found: list[Found] = []

    def remains(payload: bytes) -> bytes | None:
        if (decision := match(payload)) is None:
            return None
        found.append(decision)
        return Erased(replica=decision.replica, seq=decision.seq).model_dump_json().encode()

    for folder in spool_folders(root):
        overwrite(folder, remains)
    return found
