"""Permissions of the data folder: for its owner alone, because it has prompts and the key of their hashes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from coe.base.errors import ConfigError

PRIVATE_UMASK = 0o077
OTHERS = 0o077
DATA_OPTION = "--data-dir"

OURS = (
    *("coe.db*", "coe.log*", "log.key*", "spool", "redis", "routers", "outcomes", "pilots"),
    *("retrieval", "cache", "adapters", "engines", "run"),
)
"""Names of the files that coe writes there. A folder named by mistake may have other files, which are left alone."""


def data_folder_of(arguments: Sequence[str]) -> Path:
    """Return the data folder of a command line: its option, else COE_DATA_DIR, else `data`."""
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{DATA_OPTION}="):
            return Path(argument.removeprefix(f"{DATA_OPTION}="))
        if argument == DATA_OPTION and place + 1 < len(arguments):
            return Path(arguments[place + 1])
    return Path(os.environ.get("COE_DATA_DIR") or "data")


def make_private(folder: Path) -> None:
    """Create the folder, or remove the permissions that other users have on it and on coe's files in it.

    Raises:
        ConfigError: it belongs to another user and is open to others.
        OSError: it cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (loose := close_to_others(folder)) is not None:
        raise ConfigError(
            f"COE_DATA_DIR: {loose} is open to other users (mode {mode_of(loose):04o}) and belongs to another user, so "
            "this one cannot close it; allowed: a folder of this user, or mode 0700 for folders and 0600 for files"
        )


def close_to_others(folder: Path) -> Path | None:
    """Remove all permissions of other users; return the first path that cannot be closed. Links are not followed."""
    stays_open = None
    for path in (folder, *written_in(folder)):
        try:
            if (mode := mode_of(path)) & OTHERS:
                path.chmod(mode & ~OTHERS)
        except FileNotFoundError:
            continue  # a segment that was sent meanwhile, say
        except OSError:
            stays_open = stays_open or path
    return stays_open


def written_in(folder: Path) -> Iterator[Path]:
    """Yield the files and folders that coe wrote into its data folder."""
    for pattern in OURS:
        for top in folder.glob(pattern):
            if top.is_symlink():
                continue
            yield top
            for parent, folders, files in os.walk(top):
                for name in (*folders, *files):
                    if not (path := Path(parent) / name).is_symlink():
                        yield path


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777
