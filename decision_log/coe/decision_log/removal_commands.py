"""`coe log erase`."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from coe.base.errors import ConfigError
from coe.base.period import parse_period
from coe.cli.options import ConfigOption, DataOption
from coe.decision_log.connections import (
    given_redis,
    opened_client,
    opened_database,
    opened_redis,
    run_with_redis,
)
from coe.decision_log.database import Database
from coe.decision_log.doctor import number_of
from coe.decision_log.doctor_commands import drain_all
from coe.decision_log.erase import Erasure, erase, rewrite_file, stored_forms
from coe.decision_log.ledger import Ledger
from coe.decision_log.privacy import load_key
from coe.decision_log.sink import SPOOL_FOLDER
from coe.decision_log.sql_removal import Removal
from coe.decision_log.stream_entries import dead_entries, dead_stream
from coe.router.config import load_config
from coe.router.log_config import LogConfig


def erase_decisions(
    subject: Annotated[
        str | None,
        typer.Option(help="key id, session id or text hash as stored; or a session's name, with keys TEAM/NAME"),
    ] = None,
    older_than: Annotated[str | None, typer.Option(help="age, e.g. 30d; units s, m, h, d, w")] = None,
    data_dir: DataOption = Path("data"),
    config: ConfigOption = Path("experts.yaml"),
) -> int:
    """Erase a subject's decisions and feedback from SQL, stream, dead letters and the spools of this machine; or what
    is older than an age, as `log.keep_days` does all the time."""
    from coe.cli.progress import working
    from coe.cli.terminal import Terminal

    if (subject is None) == (older_than is None):
        raise ConfigError("give either --subject or --older-than")
    with working("looking for decisions ..."), opened_database(data_dir) as database:
        known = load_config(config)
        if subject is None:
            said = erase_old(data_dir, known.log, given_redis(), database, str(older_than))
        else:
            work = erase_all(data_dir, known.log, given_redis(), database, subject)
            said = f"erased {erased_line(run_with_redis(work))}"
    Terminal().print(said, soft_wrap=True)
    return 0


def erase_old(data_dir: Path, config: LogConfig, redis_url: str | None, database: Database, older_than: str) -> str:
    """Erases decisions, feedback and dead letters older than an age, and counts them in a line."""
    now = time.time()
    before = now - parse_period("--older-than", older_than)
    gone = Removal(database).prune(before, now)
    dead = run_with_redis(trim_dead(data_dir, config, redis_url, before, database))
    return f"erased {gone.decisions:,} decisions, {gone.feedback:,} pieces of feedback, {dead:,} dead letters"


async def erase_all(
    data_dir: Path, config: LogConfig, redis_url: str | None, database: Database, subject: str
) -> Erasure:
    """Erases a subject. Raises RedisError, OSError, StoreError, EngineError, ConfigError."""
    if not subject.strip():
        raise ConfigError("--subject is empty; allowed: a key id, a session id or name, a text hash")
    subjects = stored_forms(subject, load_key(data_dir))
    async with opened_redis(data_dir, redis_url) as url, opened_client(data_dir, url) as client:
        root, now, drain = data_dir / SPOOL_FOLDER, time.time(), partial(drain_all, data_dir, config, url, database)
        return await erase(subjects, root, client, config.stream, database, now, drain)


async def trim_dead(data_dir: Path, config: LogConfig, redis_url: str | None, before: float, database: Database) -> int:
    """Deletes dead letters from before a time, and remembers their numbers; how many. Raises RedisError, EngineError,
    StoreError."""
    async with opened_client(data_dir, redis_url) as client:
        first = int(max(before, 0.0) * 1000)
        old = [
            number
            async for entry in dead_entries(client, config.stream)
            if int(entry.id.partition(b"-")[0]) < first and (number := number_of(entry.payload or b"")) is not None
        ]
        Ledger(database).note_erased(old, at=time.time())
        count = int(await client.xtrim(dead_stream(config.stream), minid=first, approximate=False))
        await rewrite_file(client)
    return count


def erased_line(done: Erasure) -> str:
    return (
        f"{done.sql.decisions:,} decisions and {done.sql.feedback:,} pieces of feedback from SQL, "
        f"{done.dead:,} dead letters"
    )
