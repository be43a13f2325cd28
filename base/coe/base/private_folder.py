"""The data folder is for its owner alone: it holds what people asked, and the key that their hashes were made with."""

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
"""Names of the files that coe writes there. A folder named by mistake may hold other things, which are left alone."""


def data_folder_of(arguments: Sequence[str]) -> Path:
    """The data folder that a command works on: by its option, else COE_DATA_DIR, else `data`."""
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{DATA_OPTION}="):
            return Path(argument.removeprefix(f"{DATA_OPTION}="))
        if argument == DATA_OPTION and place + 1 < len(arguments):
            return Path(arguments[place + 1])
    return Path(os.environ.get("COE_DATA_DIR") or "data")


def make_private(folder: Path) -> None:
    """Makes the folder, or takes what others may do from it and from what coe wrote there.

    Raises:
        ConfigError: it belongs to somebody else and is open to others.
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (loose := close_to_others(folder)) is not None:
        raise ConfigError(
            f"COE_DATA_DIR: {loose} is open to other users (mode {mode_of(loose):04o}) and belongs to another user, so "
            "this one cannot close it; allowed: a folder of this user, or mode 0700 for folders and 0600 for files"
        )


def close_to_others(folder: Path) -> Path | None:
    """Takes all permissions from other users. Returns the first path that belongs to somebody else and stays open to
    them. Links are not followed."""
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
    """Files and folders that coe wrote into its data folder."""
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
