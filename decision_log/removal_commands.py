"""`coe log erase`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from base.errors import ConfigError
from base.options import ConfigOption, DataOption, require_folder
from base.period import parse_period
from decision_log.connections import (
    given_redis,
    opened_client,
    opened_database,
    run_with_redis,
)
from decision_log.database import Database
from decision_log.doctor import number_of
from decision_log.erase import Erasure, erase, rewrite_file, stored_forms
from decision_log.ledger import Ledger
from decision_log.privacy import load_key
from decision_log.sink import SPOOL_FOLDER
from decision_log.sql_removal import Removal
from decision_log.stream_entries import dead_entries, dead_stream
from router.config import load_config
from router.log_config import LogConfig


def erase_decisions(
    subject: Annotated[
        str | None,
        typer.Option(help="key id, session id or text hash as stored; or a session's name, with keys TEAM/NAME"),
    ] = None,
    older_than: Annotated[str | None, typer.Option(help="age, e.g. 30d; units s, m, h, d, w")] = None,
    data_dir: DataOption = Path("data"),
    config: ConfigOption = Path("experts.yaml"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="with --subject: say what would be erased, and erase nothing")
    ] = False,
    archive: Annotated[
        Path | None,
        typer.Option("--archive", help="with --older-than: move to files here; with --subject: also from them"),
    ] = None,
) -> int:
    """Erase a subject's decisions and feedback from SQL, stream, dead letters and the spools of this machine; or what
    is older than an age, as `log.keep_days` does every hour."""
    from base.progress import working
    from base.terminal import Terminal

    if (subject is None) == (older_than is None):
        raise ConfigError("give either --subject or --older-than")
    if dry_run and subject is None:
        raise ConfigError("--dry-run: it needs --subject")
    if archive is not None and older_than is not None:
        archive_old(data_dir, older_than, archive)
        return 0
    if archive is not None and not archive.is_dir():
        raise ConfigError(f"--archive {archive}: is not a folder; allowed: one that --older-than moved decisions to")
    with working("looking for decisions ..."), opened_database(data_dir, is_reader=dry_run) as database:
        known = load_config(config)
        if subject is None:
            said = erase_old(data_dir, known.log, given_redis(), database, str(older_than))
        else:
            done = "would erase" if dry_run else "erased"
            work = erase_all(data_dir, known.log, given_redis(), database, subject, is_dry_run=dry_run)
            said = f"{done} {erased_line(run_with_redis(work))}"
            if archive is not None:
                from decision_log.archive import erase_archived

                subjects = stored_forms(subject, load_key(data_dir))
                gone = erase_archived(archive, subjects, time.time(), is_dry_run=dry_run)
                said += f", {gone.decisions:,} decisions and {gone.feedback:,} pieces of feedback from {archive}"
    Terminal().print(said, soft_wrap=True)
    return 0


def archive_old(data_dir: Path, older_than: str, out: Path) -> None:
    """Moves decisions older than an age, with their feedback, from SQL to files of compressed JSON lines."""
    from base.progress import console_progress
    from base.terminal import Terminal
    from decision_log.archive import archive

    now = time.time()
    before = now - parse_period("--older-than", older_than)
    require_folder(out)
    with console_progress() as progress, opened_database(data_dir) as database:
        moved = archive(database, before, out, now, progress)
    said = f"moved {moved.decisions:,} decisions and {moved.feedback:,} pieces of feedback to {out}"
    Terminal().print(said, soft_wrap=True)


def erase_old(data_dir: Path, config: LogConfig, redis_url: str | None, database: Database, older_than: str) -> str:
    """Erases decisions, feedback and dead letters older than an age, and counts them in a line."""
    now = time.time()
    before = now - parse_period("--older-than", older_than)
    gone = Removal(database).prune(before, now)
    dead = run_with_redis(trim_dead(data_dir, config, redis_url, before, database))
    return f"erased {gone.decisions:,} decisions, {gone.feedback:,} pieces of feedback, {dead:,} dead letters"


async def erase_all(
    data_dir: Path,
    config: LogConfig,
    redis_url: str | None,
    database: Database,
    subject: str,
    *,
    is_dry_run: bool = False,
) -> Erasure:
    """Erases a subject, or only looks. Raises RedisError, OSError, StoreError, EngineError, ConfigError."""
    if not subject.strip():
        raise ConfigError("--subject is empty; allowed: a key id, a session id or name, a text hash")
    subjects = stored_forms(subject, load_key(data_dir))
    async with opened_client(data_dir, redis_url, is_reader=is_dry_run) as client:
        root, now = data_dir / SPOOL_FOLDER, time.time()
        return await erase(subjects, root, client, config.stream, database, now, is_dry_run=is_dry_run)


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
        f"{done.in_stream:,} records from the stream, {done.in_spools:,} from spools"
    )
