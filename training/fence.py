"""A fence around promotion: whoever held an older turn cannot promote any more, however late it wakes up.

A lock with a time-out is no proof: its holder may be stopped for minutes (a paused machine, a full disk) and go on as
if nothing had happened. So every turn has a number that only rises, the highest one is written beside the routers
before that turn begins, and a promotion is made under a file lock that compares both (fencing tokens, Kleppmann 2016).
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from router.errors import ArtifactError, RouterError

FENCE_FILE = ".fence"


class LockLostError(RouterError):
    """Another process took its turn to retrain in the meantime, so this one may not promote."""


@dataclass(frozen=True)
class Fence:
    """The highest turn that ever began over one folder of routers."""

    root: Path

    def highest(self) -> int:
        """The number of the newest turn; 0 before the first. Raises ArtifactError when the file is damaged."""
        with self.locked() as highest:
            return highest

    def begin(self, turn: int) -> None:
        """Shuts out every older turn. Raises LockLostError when a newer one has begun."""
        with self.locked() as highest:
            if turn <= highest:
                raise LockLostError(f"turn {turn} to retrain cannot begin: turn {highest} has begun already")
            (self.root / FENCE_FILE).write_text(str(turn), encoding="ascii")

    @contextmanager
    def passing(self, turn: int) -> Iterator[None]:
        """Held while promoting: nobody else can begin a turn meanwhile. Raises LockLostError."""
        with self.locked() as highest:
            if turn != highest:
                raise LockLostError(
                    f"turn {turn} to retrain is over: turn {highest} has begun, so nothing was promoted"
                )
            yield

    @contextmanager
    def locked(self) -> Iterator[int]:
        """The file lock, with the number that is written in the file."""
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / FENCE_FILE
        with path.open("a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            written = file.read().strip()
            if written and not written.isdecimal():
                raise ArtifactError(f"{path}: holds '{written[:20]}', not the number of a turn; delete the file")
            yield int(written or 0)
