"""Rows of an index as a file that is mapped into memory, sorted by key.

Sections, little-endian: normals f32 (d, `BITS`), keys i64 (n,), sketches u64 (`WORDS`, n), vectors f16 (n, d).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.index.rows import BITS, WORDS, Rows

WRITTEN_AT_ONCE = 1 << 14  # vectors

Array = NDArray[Any]


def sections(n: int, dim: int) -> list[tuple[str, tuple[int, ...]]]:
    """Type and shape of each section, in order."""
    return [("<f4", (dim, BITS)), ("<i8", (n,)), ("<u8", (WORDS, n)), ("<f2", (n, dim))]


def file_bytes(n: int, dim: int) -> int:
    return sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in sections(n, dim))


def mapped_rows(path: Path, n: int, dim: int) -> Rows:
    """The rows of a file of `file_bytes(n, dim)` bytes. Raises OSError."""
    content = np.memmap(path, dtype=np.uint8, mode="r")
    arrays: list[Array] = []
    at = 0
    for kind, shape in sections(n, dim):
        size = np.dtype(kind).itemsize * int(np.prod(shape))
        arrays.append(np.asarray(content[at : at + size]).view(kind).reshape(shape))
        at += size
    normals, keys, sketches, vectors = arrays
    return Rows(keys, sketches, vectors, np.array(normals))


def write_rows(path: Path, held: Rows, fresh: Rows) -> int:
    """Writes the rows of both, which have no key and all hyperplanes in common, and syncs the file.

    Returns:
        The number of rows.

    Raises:
        OSError
    """
    places = held.held(), fresh.held()
    keys = np.concatenate([held.keys[places[0]], fresh.keys[places[1]]])
    order = np.argsort(keys, kind="stable")
    with path.open("wb") as file:
        file.write(np.ascontiguousarray(held.normals, "<f4").data)
        file.write(keys[order].astype("<i8").data)
        for old, new in zip(held.sketches, fresh.sketches, strict=True):
            file.write(np.concatenate([old[places[0]], new[places[1]]])[order].astype("<u8").data)
        for part in ordered(held.vectors, fresh.vectors, places, order):
            file.write(part.astype("<f2").data)
        file.flush()
        os.fsync(file.fileno())
    return len(keys)


def ordered(old: Array, new: Array, places: tuple[Array, Array], order: Array) -> Iterator[Array]:
    """Rows at `places` of two arrays, which count on from the first to the second, in an order, a part at a time."""
    count = len(places[0])
    for start in range(0, len(order), WRITTEN_AT_ONCE):
        wanted = order[start : start + WRITTEN_AT_ONCE]
        part, is_old = np.empty((len(wanted), old.shape[1]), old.dtype), wanted < count
        part[is_old] = old[places[0][wanted[is_old]]]
        part[~is_old] = new[places[1][wanted[~is_old] - count]]
        yield part
