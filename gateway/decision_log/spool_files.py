"""What lies in a spool's folder: numbered segments and a checkpoint, the position up to which all is in the stream."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

HIDDEN = "."
"""Begins the name of a spool's folder that is being made."""

SUFFIX = ".seg"
CHECKPOINT_NAME = "checkpoint.json"
TEMPORARY_NAME = f"{CHECKPOINT_NAME}.tmp"


class Position(NamedTuple):
    """A place in the spool."""

    segment: int
    offset: int


def segment_paths(folder: Path) -> list[Path]:
    """Segment files, oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal())


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


def write_checkpoint(folder: Path, position: Position) -> None:
    """Replaces the checkpoint atomically. Raises OSError."""
    temporary = folder / TEMPORARY_NAME
    temporary.write_text(json.dumps(position._asdict()))
    temporary.replace(folder / CHECKPOINT_NAME)


def read_checkpoint(folder: Path) -> Position:
    """The checkpoint; the very beginning when there is none or it is unreadable, so records repeat but none is lost."""
    try:
        values = json.loads((folder / CHECKPOINT_NAME).read_text())
        return Position(int(values["segment"]), int(values["offset"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Position(0, 0)
