"""The command `coe log erase`: it erases a subject from SQL, stream, dead letters, local spools and cached answers.

SQL comes first and then rejects decisions that are still on their way, so spools and stream are drained into it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.base.errors import ConfigError, StoreError
from coe.base.redis_names import CACHED_ANSWERS, CACHED_FROM
from coe.cli.options import ConfigOption, DataOption
from coe.decision_log.connections import given_redis, opened_client, opened_database, opened_redis, run_with_redis
from coe.decision_log.database import Database
from coe.decision_log.doctor_commands import drain_all
from coe.decision_log.payloads import json_line
from coe.decision_log.privacy import (
    MAX_SEARCH_CHARS,
    SESSION_HEADERS,
    keyed_hash,
    load_key,
    named_session,
    session_hash,
    session_of,
)
from coe.decision_log.redis_client import RedisError
from coe.decision_log.sink import SPOOL_FOLDER
from coe.decision_log.spool import scrub, spool_folders, unsent_payloads
from coe.decision_log.sql_removal import Found, Removal, Removed, found_of
from coe.decision_log.stream_entries import dead_entries, dead_stream
from coe.router.config.composition import load_config
from coe.router.config.gateway import GatewayConfig
from coe.router.config.log import LogConfig
from coe.router.types import ask_in, cap

if TYPE_CHECKING:
    from coe.decision_log.redis_client import RedisClient


REWRITE_TIMEOUT_S = 60.0
POLL_S = 0.05
SENT_WITHIN_S = 30.0

Match = Callable[[bytes], Found | None]


@dataclass(frozen=True, slots=True)
class Erasure:
    """The amounts that were erased, by place."""

    sql: Removed
    dead: int


def stored_forms(subject: str, key: bytes) -> frozenset[str]:
    """Return the forms in which the log may store a subject.

    A stored id is itself. A session's name (with keys `TEAM/NAME`) or a text is stored as a keyed hash. A name in a
    header is read as the gateway reads it, and a text is cut as for an ask or a search.

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
    """Return the names that the log may have for a session, from a header and from a field of a body."""
    return {f"named:{session}", named_session({SESSION_HEADERS[0]: session.encode()}) or f"named:{session}"}


def erase_decisions(
    subject: Annotated[
        str, typer.Option(help="key id, session id or text hash as stored; or a session's name, with keys TEAM/NAME")
    ],
    data_dir: DataOption = Path("data"),
    config: ConfigOption = Path("experts.yaml"),
) -> int:
    """Erase a subject's decisions and feedback from SQL, stream, dead letters and the spools of this machine."""
    from coe.cli.progress import working
    from coe.cli.terminal import Terminal

    with working("looking for decisions ..."), opened_database(data_dir) as database:
        done = run_with_redis(erase(data_dir, load_config(config).log, given_redis(), database, subject))
    said = f"{done.sql.decisions:,} decisions and {done.sql.feedback:,} pieces of feedback from SQL"
    Terminal().print(f"erased {said}, {done.dead:,} dead letters", soft_wrap=True)
    return 0


async def erase(data_dir: Path, config: LogConfig, redis_url: str | None, database: Database, subject: str) -> Erasure:
    """Erase what was decided up to now; repeating it is harmless.

    Raises:
        ConfigError: the subject is empty.
        RedisError, OSError, StoreError, EngineError: a service does not answer; completed parts stay done and can be
            repeated.
    """
    if not subject.strip():
        raise ConfigError("--subject is empty; allowed: a key id, a session id or name, a text hash")
    subjects, at, removal = stored_forms(subject, load_key(data_dir)), time.time(), Removal(database)

    def match(payload: bytes) -> Found | None:
        return found_of(json_line(payload), subjects, at)

    gone = await asyncio.to_thread(removal.erase, subjects, at)
    async with opened_redis(data_dir, redis_url) as url, opened_client(data_dir, url) as client:
        await bring_to_sql(data_dir / SPOOL_FOLDER, match, partial(drain_all, data_dir, config, url, database))
        dead = [
            (entry.id, found)
            async for entry in dead_entries(client, config.stream)
            if (found := match(entry.payload or b"")) is not None
        ]
        if dead:  # noted before they are deleted, so that every number is accounted for
            said = await asyncio.to_thread(removal.remove, [found for _, found in dead], reason="erased", at=at)
            gone += Removed(feedback=said.feedback)
            await client.xdel(dead_stream(config.stream), *(entry_id for entry_id, _ in dead))
        await forget_answers(client)
        await rewrite_file(client)
    return Erasure(gone, len(dead))


async def bring_to_sql(root: Path, match: Match, drain: Callable[[], Awaitable[object]]) -> None:
    """Send matching decisions in spools under `root`, and the stream, to SQL, and leave no trace of them in the spools.

    Raises:
        StoreError: a gateway does not send its spool in time.
    """
    until_s = time.monotonic() + SENT_WITHIN_S
    while await asyncio.to_thread(is_spooled, root, match):
        if time.monotonic() > until_s:
            raise StoreError(f"a gateway has not sent its spool in {root} within {SENT_WITHIN_S:.0f} s; run this again")
        await drain()
        await asyncio.sleep(POLL_S)  # gateways that run send their own
    await drain()
    for folder in await asyncio.to_thread(spool_folders, root):
        await asyncio.to_thread(scrub, folder)


def is_spooled(root: Path, match: Match) -> bool:
    """Return whether a spool under `root` has a matching decision that is not sent; may raise OSError."""
    return any(match(payload) for folder in spool_folders(root) for payload in unsent_payloads(folder))


async def forget_answers(client: RedisClient) -> None:
    """Empty the answer cache: the owner of an answer is known only from its decision, which may still be on its way."""
    for kind in (CACHED_ANSWERS, CACHED_FROM):
        async for name in client.scan_iter(match=f"{kind}*", count=1000):
            await client.unlink(name)


async def rewrite_file(client: RedisClient) -> None:
    """Make Redis rewrite its append-only file without deleted data, unless it is a cluster or forbids this."""
    from redis.asyncio import Redis

    if not isinstance(client, Redis):
        return
    with suppress(RedisError, TimeoutError):
        await client.bgrewriteaof()
        async with asyncio.timeout(REWRITE_TIMEOUT_S):
            while (info := await client.info("persistence")).get("aof_rewrite_in_progress") or info.get(
                "aof_rewrite_scheduled"
            ):
                await asyncio.sleep(POLL_S)
