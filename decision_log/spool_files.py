"""Files of a spool's folder: numbered segments and a checkpoint, the position up to which all is in the stream.

A checkpoint only saves work: what it says counts where its checksum and the segments agree with it, and otherwise
records are sent again, which SQL ignores by decision id. Nothing is ever deleted because of it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HIDDEN = "."
"""Begins the name of a spool's folder that is being made."""

SUFFIX = ".seg"
CHECKPOINT_NAME = "checkpoint.json"
PROBE_NAME = "probe"
TEMPORARY_NAME = f"{CHECKPOINT_NAME}.tmp"


class Position(NamedTuple):
    """A place in the spool."""

    segment: int
    offset: int

    @property
    def checksum(self) -> int:
        """CRC-32 of both numbers."""
        return zlib.crc32(f"{self.segment} {self.offset}".encode())


def segment_paths(folder: Path) -> list[Path]:
    """Segment files, oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal())


def write_checkpoint(folder: Path, position: Position) -> None:
    """Replaces the checkpoint atomically. Raises OSError."""
    temporary = folder / TEMPORARY_NAME
    temporary.write_text(json.dumps({**position._asdict(), "crc32": position.checksum}))
    temporary.replace(folder / CHECKPOINT_NAME)


def read_checkpoint(folder: Path) -> Position:
    """The checkpoint; the very beginning when there is none, it is unreadable or its checksum is wrong."""
    try:
        values = json.loads((folder / CHECKPOINT_NAME).read_text())
        position = Position(int(values["segment"]), int(values["offset"]))
        is_whole = values["crc32"] == position.checksum
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return Position(0, 0)
    return position if is_whole else Position(0, 0)


def sent_bytes(checkpoint: Position, segment: int, *, is_oldest: bool, ends: Sequence[int]) -> int:
    """Bytes of a segment that are in the stream already, as far as the checkpoint proves it: segments are sent and
    deleted in order, so it can only speak of the oldest one there, and of a place where a record ends.

    Args:
        ends: offsets behind the segment's intact records.
    """
    is_proved = is_oldest and segment == checkpoint.segment and checkpoint.offset in ends
    return checkpoint.offset if is_proved else 0
