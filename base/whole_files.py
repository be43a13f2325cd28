"""Files that are there as a whole or not at all, what outlives a power cut, and locks between processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, text: str, mode: int | None = None) -> None:
    """Replaces a file, so that a reader finds the old text or the new one.

    Args:
        mode: its permissions; None: those of a new file.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_text(text, encoding="utf-8")
    if mode is not None:
        staged.chmod(mode)
    staged.replace(path)


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


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
