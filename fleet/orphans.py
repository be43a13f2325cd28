"""Engine processes whose supervisor is gone. Linux alone: elsewhere nothing is found."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from pathlib import Path

OWNER = "COE_ENGINE_OF"
"""Environment variable of every engine process and its children: data folder and process id of who started it."""


def owner_mark(data_dir: Path) -> str:
    return f"{data_dir.resolve()}:{os.getpid()}"


def orphans(data_dir: Path) -> tuple[int, ...]:
    """Process ids of engines of a data folder whose starter no longer lives."""
    begin = f"{OWNER}={data_dir.resolve()}:".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or it is another user's
            continue
        owners = [word.removeprefix(begin) for word in words if word.startswith(begin)]
        if owners and not Path("/proc", owners[0].decode("ascii", "replace")).exists():
            found.append(int(folder.name))
    return tuple(found)


def end_processes(pids: Collection[int]) -> None:
    """Kills them: their sockets and their GPU memory are needed now."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
