"""How many decisions each life of each gateway process numbered, so that a loss at its very end is seen too.

A process that is killed cannot say what it still had in memory. So the count stands in a small file of the spool, one
write of 8 bytes (0.4 us) a decision, which outlives the process; it travels to SQL through the stream: from the living
every `BEAT_S`, from one that ends in order as its last word, and for one that was killed by whoever sends its spool.
"""

from __future__ import annotations

import os
import struct
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from router.types import Record

MARK_NAME = "decisions.count"
MARK = struct.Struct("<QB")
COUNT = struct.Struct("<Q")
BEAT_S = 30.0


class LifeState(StrEnum):
    """What is known of the end of a life."""

    RUNNING = "running"
    ENDED = "ended"
    KILLED = "killed"


class Life(Record):
    """One life of one gateway process: it numbered its decisions 0 to `decisions` - 1."""

    replica: str
    decisions: int = Field(ge=0)
    state: LifeState
    at: float = Field(description="Unix seconds when this was known")


class DecisionCount:
    """The number of decisions so far, kept in a file from `open` on. A full disk holds up the file only."""

    def __init__(self) -> None:
        self.value = 0
        self._descriptor: int | None = None

    def open(self, folder: Path) -> None:
        """Raises OSError."""
        self._descriptor = os.open(folder / MARK_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.pwrite(self._descriptor, MARK.pack(self.value, False), 0)

    def note(self, seq: int) -> None:
        """Number `seq` was given to a decision."""
        if seq < self.value:
            return
        self.value = seq + 1
        if self._descriptor is not None:
            try:
                os.pwrite(self._descriptor, COUNT.pack(self.value), 0)
            except OSError:
                return  # the next decision tries again; the file was made with room for every count

    def close(self) -> None:
        """Writes that the life ended in order; harmless when the file is not open. Raises OSError."""
        if self._descriptor is None:
            return
        try:
            os.pwrite(self._descriptor, MARK.pack(self.value, True), 0)
        finally:
            os.close(self._descriptor)
            self._descriptor = None


def read_life(folder: Path, *, is_alive: bool, at: float) -> Life | None:
    """The life whose spool is in `folder`; None when it left no count."""
    try:
        count, has_ended = MARK.unpack((folder / MARK_NAME).read_bytes())
    except (OSError, struct.error):
        return None
    ended = LifeState.ENDED if has_ended else LifeState.KILLED
    return Life(replica=folder.name, decisions=count, state=LifeState.RUNNING if is_alive else ended, at=at)
