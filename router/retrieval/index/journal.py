"""What was done to an index since its last snapshot: an append-only file, on the disk before a call returns.

A record is `<operation u8> <n u32> <n keys i64> [<n x d values f16>] <CRC-32 of all that u32>`, little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from router.errors import StoreError
from router.retrieval.index.space import KeyArray
from router.types import FloatArray

HEAD = struct.Struct("<BI")
CHECK = struct.Struct("<I")
ADD, REMOVE = 1, 2
KEY_BYTES, VALUE_BYTES = 8, 2
STORED = np.float16
"""How vectors are kept, here and in snapshots: recall@10 lost 0.0006 against float32, at half the memory."""


@dataclass(frozen=True)
class Change:
    """Vectors added (n, d), or, when `vectors` is None, keys removed."""

    keys: KeyArray
    vectors: NDArray[np.float16] | None


class Journal:
    """An open journal. Not for several threads at once.

    Raises:
        StoreError: the file cannot be opened.
    """

    def __init__(self, path: Path, dim: int) -> None:
        self._path, self._dim = path, dim
        try:
            self._file = path.open("r+b" if path.exists() else "x+b", buffering=0)
        except OSError as error:
            raise StoreError(f"journal {path} cannot be opened ({error.strerror})") from error
        self.size = 0

    def replay(self) -> Iterator[Change]:
        """Every change in order. What a crash left of a last, unfinished one is cut off.

        Raises:
            StoreError: a record that was finished is damaged.
        """
        total = os.fstat(self._file.fileno()).st_size
        self._file.seek(0)
        while self.size < total:
            change, end = self._read_one(total)
            if change is None:
                self._cut(self.size)
                return
            self.size = end
            yield change

    def append(self, change: Change) -> None:
        """Raises StoreError; then the journal is as it was before."""
        operation = REMOVE if change.vectors is None else ADD
        values = b"" if change.vectors is None else change.vectors.astype("<f2", copy=False).tobytes()
        record = HEAD.pack(operation, len(change.keys)) + change.keys.astype("<i8", copy=False).tobytes() + values
        record += CHECK.pack(zlib.crc32(record))
        try:
            self._file.seek(self.size)
            write_all(self._file.fileno(), record)
            os.fdatasync(self._file.fileno())
        except OSError as error:
            self._cut(self.size)
            raise StoreError(f"journal {self._path} cannot be written ({error.strerror})", is_retryable=True) from error
        self.size += len(record)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_one(self, total: int) -> tuple[Change | None, int]:
        """The record at `size` and where it ends; None for one that a crash cut short."""
        head = self._file.read(HEAD.size)
        if len(head) < HEAD.size:
            return None, total
        operation, count = HEAD.unpack(head)
        row_bytes = KEY_BYTES + (VALUE_BYTES * self._dim if operation == ADD else 0)
        end = self.size + HEAD.size + count * row_bytes + CHECK.size
        is_last = end >= total
        body = self._file.read(min(count * row_bytes + CHECK.size, total - self.size))
        is_whole = operation in (ADD, REMOVE) and len(body) == count * row_bytes + CHECK.size
        if not is_whole or CHECK.unpack(body[-CHECK.size :])[0] != zlib.crc32(body[: -CHECK.size], zlib.crc32(head)):
            if is_last or not any(head):  # a file system may have made room, in zeros, for what was never written
                return None, total
            raise StoreError(f"journal {self._path} is damaged at byte {self.size}")
        keys = np.frombuffer(body, dtype="<i8", count=count).astype(np.int64)
        if operation == REMOVE:
            return Change(keys, None), end
        values = np.frombuffer(body, dtype="<f2", count=count * self._dim, offset=count * KEY_BYTES)
        return Change(keys, values.reshape(count, self._dim).astype(STORED)), end

    def _cut(self, size: int) -> None:
        try:
            self._file.truncate(size)
            self._file.seek(size)
        except OSError as error:
            raise StoreError(f"journal {self._path} cannot be shortened ({error.strerror})") from error


def stored(vectors: FloatArray) -> NDArray[np.float16]:
    """Vectors as they are kept."""
    return vectors.astype(STORED)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
