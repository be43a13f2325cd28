"""The folder of one run of `coe serve --workers`: sockets between its processes, and what they share."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.folder_lock import FolderLock
from fleet.redis_server import MAX_SOCKET_PATH_BYTES

RUN_FOLDER = "run"
HIDDEN = "."
LONGEST_NAME = "/worker-64.sock"


@contextmanager
def run_folder(data_dir: Path) -> Iterator[Path]:
    """A new folder in the data folder, removed at the end, as are those of runs that were killed.

    Elsewhere where the data folder's name is too long for a socket.
    """
    root = data_dir.resolve() / RUN_FOLDER
    root.mkdir(exist_ok=True, mode=0o700)
    remove_left(root)
    name = secrets.token_hex(4)
    folder, staged = root / name, root / f"{HIDDEN}{name}"
    if len(bytes(folder)) + len(LONGEST_NAME) > MAX_SOCKET_PATH_BYTES:
        with tempfile.TemporaryDirectory(prefix="coe-") as elsewhere:
            yield Path(elsewhere)
        return
    staged.mkdir(mode=0o700)  # another run that looks for what was left would lock it first
    lock = FolderLock.try_acquire(staged)
    staged.rename(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.release()
        remove_left(root)  # again: workers of a killed run may still have been writing when this one began


def remove_left(root: Path) -> None:
    """Removes the folders of runs that are over."""
    for folder in root.iterdir():
        if not folder.name.startswith(HIDDEN) and (lock := FolderLock.try_acquire(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
