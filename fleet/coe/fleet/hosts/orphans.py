"""Engine processes whose supervisor is gone. Linux alone: elsewhere nothing is found."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from coe.base.errors import EngineError

END_S = 30.0
"""A driver may take seconds to give back the memory of a killed process."""

OWNER = "COE_ENGINE_OF"
"""Environment variable of every engine process and its children: data folder, and id of the process that started it."""


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


async def end_orphans(data_dir: Path) -> tuple[int, ...]:
    """Kills them, because their ports and their GPU memory are needed now, and returns once they are gone.

    Raises:
        EngineError: some do not end.
    """
    found = left = orphans(data_dir)
    until_s = time.monotonic() + END_S
    while left:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > until_s:
            raise EngineError(f"engine processes {', '.join(map(str, left))} of an earlier run do not end")
        await asyncio.sleep(0.1)
        left = orphans(data_dir)
    return found
