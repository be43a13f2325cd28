"""`coe log erase`."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from coe.base.errors import ConfigError
from coe.cli.options import ConfigOption, DataOption
from coe.decision_log.connections import (
    given_redis,
    opened_client,
    opened_database,
    opened_redis,
    run_with_redis,
)
from coe.decision_log.database import Database
from coe.decision_log.doctor_commands import drain_all
from coe.decision_log.erase import Erasure, erase, stored_forms
from coe.decision_log.privacy import load_key
from coe.decision_log.sink import SPOOL_FOLDER
from coe.router.config import load_config
from coe.router.log_config import LogConfig


def erase_decisions(
    subject: Annotated[
        str,
        typer.Option(help="key id, session id or text hash as stored; or a session's name, with keys TEAM/NAME"),
    ],
    data_dir: DataOption = Path("data"),
    config: ConfigOption = Path("experts.yaml"),
) -> int:
    """Erase a subject's decisions and feedback from SQL, stream, dead letters and the spools of this machine."""
    from coe.cli.progress import working
    from coe.cli.terminal import Terminal

    with working("looking for decisions ..."), opened_database(data_dir) as database:
        done = run_with_redis(erase_all(data_dir, load_config(config).log, given_redis(), database, subject))
    Terminal().print(f"erased {erased_line(done)}", soft_wrap=True)
    return 0


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


def erased_line(done: Erasure) -> str:
    return (
        f"{done.sql.decisions:,} decisions and {done.sql.feedback:,} pieces of feedback from SQL, "
        f"{done.dead:,} dead letters"
    )
