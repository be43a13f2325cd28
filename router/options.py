"""Options that several commands share, and the check of `--out` before any work is done for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from router.errors import ConfigError

ConfigOption = Annotated[Path, typer.Option("--config", envvar="COE_CONFIG", help="experts.yaml to read")]
DataOption = Annotated[
    Path, typer.Option("--data-dir", envvar="COE_DATA_DIR", help="folder of everything that is kept")
]
DatabaseOption = Annotated[
    str | None,
    typer.Option("--database-url", envvar="DATABASE_URL", help="SQL of the decision log; default: <data>/coe.db"),
]
RedisOption = Annotated[
    str | None, typer.Option("--redis-url", envvar="REDIS_URL", help="Redis of the decision log; default: our own")
]


def require_folder(out: Path) -> None:
    """Raises ConfigError when `out` is not a folder and cannot become one, or is not writable."""
    check_folder(out, out)


def require_file(out: Path) -> None:
    """Raises ConfigError when `out` is a folder, or cannot be written."""
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file")
    check_folder(out, out.absolute().parent)
    if out.exists() and not os.access(out, os.W_OK):
        raise ConfigError(f"--out {out}: cannot be written; name another")


def check_folder(out: Path, folder: Path) -> None:
    """Raises ConfigError about `out` when nothing can be written in `folder`, or where it would be made."""
    for place in (folder, *folder.absolute().parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise ConfigError(f"--out {out}: cannot be written because {place} is read-only; name another")
            return
        if place.exists() or place.is_symlink():
            raise ConfigError(f"--out {out}: cannot be written because {place} is not a folder; name another")
