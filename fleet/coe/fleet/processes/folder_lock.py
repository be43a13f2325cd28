"""One live process per folder, by `flock`: the lock goes when its process does, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

LOCK_NAME = "lock"


class FolderLock:
    """A held lock. Get one from `try_acquire`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def try_acquire(cls, folder: Path) -> Self | None:
        """The lock on `folder`, or None when another holder (also one in this process) has it or the folder is gone."""
        path = folder / LOCK_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have deleted the folder between our open and our lock.
            if os.fstat(descriptor).st_ino != path.stat().st_ino:
                raise FileNotFoundError(path)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        except (BlockingIOError, FileNotFoundError):
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Gives the lock up; harmless when already given up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_held(folder: Path) -> bool:
    """Returns True when a live process has the lock on `folder`. True also where this user may not open it."""
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder_of(folder: Path) -> str:
    """Process id of the last program that locked `folder`; `unknown` when there is none."""
    try:
        return (folder / LOCK_NAME).read_text() or "unknown"
    except OSError:
        return "unknown"
