"""Count of the decisions of each replica (one run of a gateway process), so that a loss at its very end is seen too.

A process that is killed cannot say what it still had in memory. So the count is kept in a small file of the spool, one
write of 8 bytes (0.4 us) a decision, made before the client sees the end of the answer; it outlives the process. It
travels to SQL through the stream: from the living every `BEAT_S`, from one that ends in order as its last word, and for
one that was killed by the replica that sends its spool.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from coe.router.types import Record

MARK_NAME = "decisions.count"
MARK = struct.Struct("<QQB")
COUNT = struct.Struct("<Q")
SETTLED_OFFSET = COUNT.size
BEAT_S = 30.0


class ReplicaState(StrEnum):
    """State of a replica: it runs, ended in order, or was killed."""

    RUNNING = "running"
    ENDED = "ended"
    KILLED = "killed"


class ReplicaStatus(Record):
    """State and counts of one replica: it numbered its decisions 0 to `decisions` - 1.

    Below `settled` each was in the spool, or lost; above, some may be in memory while it runs.
    """

    replica: str
    decisions: int = Field(ge=0)
    settled: int = Field(default=0, ge=0)
    state: ReplicaState
    at: float = Field(description="Unix seconds when this was known")


class DecisionCount:
    """Gives out numbers and keeps their count in a file from `open` on. A full disk holds up the file only.

    Args:
        is_durable: count a row when it is safe (`note`) rather than when its number is given out (`take`), so that an
            answer that never ended does not count as lost.
    """

    def __init__(self, *, is_durable: bool = False) -> None:
        self.value = 0
        self._is_durable = is_durable
        self._next = 0
        self._unsettled: dict[int, None] = {}  # in rising order
        self._descriptor: int | None = None

    @property
    def settled(self) -> int:
        """Every number below is in the spool, or lost."""
        return next(iter(self._unsettled), self.value)

    def take(self) -> int:
        """The next number."""
        seq = self._next
        self._next += 1
        if not self._is_durable:
            self._unsettled[seq] = None
            self.value = self._next
            self._put(self.value, 0)
        return seq

    def open(self, folder: Path) -> None:
        """Raises OSError."""
        self._descriptor = os.open(folder / MARK_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.pwrite(self._descriptor, MARK.pack(self.value, self.settled, False), 0)

    def note(self, seq: int) -> None:
        """Number `seq` counts from now on."""
        if seq >= self.value:
            self.value = seq + 1
            self._put(self.value, 0)

    def settle(self, seqs: Iterable[int]) -> None:
        """These are in the spool, or lost."""
        for seq in seqs:
            self._unsettled.pop(seq, None)
        self._put(self.settled, SETTLED_OFFSET)

    def _put(self, value: int, offset: int) -> None:
        if self._descriptor is not None:
            try:
                os.pwrite(self._descriptor, COUNT.pack(value), offset)
            except OSError:
                return  # the next call tries again; the file was made with room for every value

    def close(self) -> None:
        """Writes that the replica ended in order; harmless when the file is not open. Raises OSError."""
        if self._descriptor is None:
            return
        try:
            os.pwrite(self._descriptor, MARK.pack(self.value, self.settled, True), 0)
        finally:
            os.close(self._descriptor)
            self._descriptor = None


def read_status(folder: Path, *, is_alive: bool, at: float) -> ReplicaStatus | None:
    """Status of the replica whose spool is in `folder`; None when it left no count."""
    try:
        count, settled, has_ended = MARK.unpack((folder / MARK_NAME).read_bytes())
    except (OSError, struct.error):
        return None
    ended = ReplicaState.ENDED if has_ended else ReplicaState.KILLED
    state = ReplicaState.RUNNING if is_alive else ended
    return ReplicaStatus(replica=folder.name, decisions=count, settled=settled, state=state, at=at)
