"""Atomic file replacement, writes that survive a power cut, and locks between processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: str | bytes, mode: int | None = None, *, is_synced: bool = False) -> None:
    """Replace a file atomically: a reader sees the old content or the new one.

    Args:
        mode: permission bits; None for those of a new file.
        is_synced: return only when the new content would survive a power cut.
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
    """Hold the lock of a file during a block; wait for its holder. The file and its folder are created if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_all(descriptor: int, block: bytes) -> None:
    """Write every byte. On OSError, some bytes may have been written."""
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_path(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk, so that they survive a power cut; may raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
