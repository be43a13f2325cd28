"""Frames of records on the disk: magic, payload length, CRC-32 of length and payload, payload.

The first magic byte, 0xC0, occurs nowhere in UTF-8, and where an embedding has it the checksum differs; so after damage
the next frame is found again and only damaged records are lost.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

MAGIC = b"\xc0\xe5"
HEADER = struct.Struct(">2sII")
LENGTH = struct.Struct(">I")


class Frame(NamedTuple):
    """One intact record and the offset just behind it."""

    payload: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Scan:
    """Intact frames of some bytes, how many damaged stretches lay between them, and where the last frame ended."""

    frames: tuple[Frame, ...]
    damaged: int
    end: int


def frame(payload: bytes) -> bytes:
    """The payload as it is written to a segment."""
    length = LENGTH.pack(len(payload))
    return MAGIC + length + LENGTH.pack(zlib.crc32(payload, zlib.crc32(length))) + payload


def frame_at(data: bytes, offset: int) -> Frame | None:
    """The intact frame that begins at `offset`; None when it is cut, damaged or not there."""
    body = offset + HEADER.size
    if len(data) < body:
        return None
    magic, length, checksum = HEADER.unpack_from(data, offset)
    end = body + length
    if magic != MAGIC or end > len(data):
        return None
    payload = data[body:end]
    if zlib.crc32(payload, zlib.crc32(LENGTH.pack(length))) != checksum:
        return None
    return Frame(payload, end)


def scan(data: bytes) -> Scan:
    """Every intact frame of `data`. Bytes behind the last one are its torn tail and count as no damage."""
    frames: list[Frame] = []
    damaged = end = offset = 0
    while offset >= 0:
        found = frame_at(data, offset)
        if found is None:
            offset = data.find(MAGIC, offset + 1)
            continue
        damaged += offset > end
        frames.append(found)
        offset = end = found.end
    return Scan(tuple(frames), damaged, end)
