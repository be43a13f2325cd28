"""Files that are there as a whole or not at all, what outlives a power cut, and locks between processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: str | bytes, mode: int | None = None, *, is_synced: bool = False) -> None:
    """Replaces a file, so that a reader finds the old content or the new one.

    Args:
        mode: its permissions; None: those of a new file.
        is_synced: the new content outlives a power cut.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_bytes(content.encode() if isinstance(content, str) else content)
    if mode is not None:
        staged.chmod(mode)
    if is_synced:
        sync_path(staged)
    staged.replace(path)
    if is_synced:
        sync_path(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file, which is made with its folder where there is none; waits for its holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_all(descriptor: int, block: bytes) -> None:
    """Writes every byte. Raises OSError; some bytes may be written then."""
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_path(path: Path) -> None:
    """Makes a file's content, or the names in a folder, outlive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
