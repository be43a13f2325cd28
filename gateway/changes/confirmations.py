"""Each process that serves says in a folder of its own which change it has seen, so that a command can wait for it.

The folder is locked while the process runs: what a killed one has left is known by that, and removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from base.whole_files import write_whole
from fleet.folder_lock import own_folder, remove_left
from router.types import Record

GATEWAYS = "gateways"
STATE = "state.json"
LOOK_EVERY_S = 0.1


class Confirmed(Record):
    """The last change that a process has seen, and the copy that it serves; `problem` says why this is another one."""

    change: int
    number: int
    problem: str | None


class Confirmation:
    """This process's folder below that of the configurations. Blocks. Raises OSError where it cannot be made."""

    def __init__(self, root: Path) -> None:
        self._folder = root / GATEWAYS / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = own_folder(self._folder)

    def write(self, confirmed: Confirmed) -> None:
        """Writes it, unless the disk is full: then a command that waits learns nothing."""
        with suppress(OSError):
            write_whole(self._folder / STATE, confirmed.model_dump_json())

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.release()


def wait_for(root: Path, change: int, seconds: float) -> dict[str, Confirmed | None]:
    """Confirmation of each running process, by its name, once all have seen a change; None for those that are late."""
    until_s = time.monotonic() + seconds
    while True:
        found = {name: said if said and said.change >= change else None for name, said in running(root).items()}
        if None not in found.values() or time.monotonic() > until_s:
            return found
        time.sleep(LOOK_EVERY_S)


def running(root: Path) -> dict[str, Confirmed | None]:
    """Last confirmation of each running process, by its name; None for one that has just begun."""
    found: dict[str, Confirmed | None] = {}
    for folder in remove_left(root / GATEWAYS):
        with suppress(OSError, ValueError):
            found[folder.name] = None
            found[folder.name] = Confirmed.model_validate_json((folder / STATE).read_bytes())
    return found
