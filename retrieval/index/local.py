"""Indexes on local disk: a memory-mapped snapshot of vectors, and a journal of what changed since.

A folder holds `index.json` (space, generation), `rows-<generation>.bin` and `journal-<generation>.log`. A snapshot
cannot change, so changes are kept in memory: what was added, and which of its rows were removed. When there are
many of them, a new snapshot takes them in. It becomes the index by one rename of `index.json`, so a crash finds the old
generation or the new one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from base.errors import DamagedIndexError, StoreError
from base.whole_files import write_whole
from retrieval.index.journal import Change, Journal, stored
from retrieval.index.rows import BITS, WORDS, Rows, hyperplanes
from retrieval.index.space import Hits, KeyArray, VectorSpace, best, require_same_space, require_vectors
from router.types import FloatArray, Record

MANIFEST = "index.json"
WRITTEN_AT_ONCE = 1 << 14  # vectors
Array = NDArray[Any]
SNAPSHOT_BYTES = 64 * 1024 * 1024
"""Size of a journal that ends in a snapshot; that of a large index may reach half the size of its snapshot."""


class Manifest(Record):
    """The content of `index.json`; `rows` are those of the snapshot."""

    schema_version: int = 1
    space: VectorSpace
    generation: int
    rows: int


class LocalIndexes:
    """A folder of indexes. One process at a time may have it open; an instance keeps others out."""

    def __init__(self, folder: Path, space: VectorSpace) -> None:
        self._folder, self._space = folder, space
        self._open: dict[str, LocalIndex] = {}
        self._lock = threading.Lock()

    def open(self, name: str) -> LocalIndex:
        """The index of that name. Raises as `LocalIndex` does."""
        with self._lock:
            if name not in self._open:
                self._open[name] = LocalIndex(self._folder / name, self._space)
            return self._open[name]

    def drop(self, name: str) -> None:
        """Deletes the index and its folder. Raises StoreError."""
        with self._lock:
            index = self._open.pop(name, None)
            if index is not None:
                index.abandon()
            try:
                shutil.rmtree(self._folder / name)
            except FileNotFoundError:
                return
            except OSError as error:
                raise StoreError(f"index {name} cannot be deleted ({error.strerror})", is_retryable=True) from error

    def close(self) -> None:
        with self._lock:
            for index in self._open.values():
                index.close()
            self._open.clear()


class LocalIndex:
    """One index.

    Raises:
        VectorSpaceError: it holds another encoder's vectors.
        DamagedIndexError: what is on the disk is not whole.
        StoreError: it cannot be read.
    """

    def __init__(self, folder: Path, space: VectorSpace) -> None:
        self._folder, self.space = folder, space
        self._lock = threading.RLock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._manifest = read_manifest(folder) or self._begin()
        except OSError as error:
            raise StoreError(f"index {folder} cannot be opened ({error.strerror})") from error
        require_same_space(folder.name, self._manifest.space, space)
        self._held: Rows | None = self._mapped()
        self._fresh = Rows.empty(self._held.normals)
        self._journal = Journal(self._journal_path(self._manifest.generation), space.dim)
        self._remove_strays()
        for change in self._journal.replay():
            self._apply(change)

    def __len__(self) -> int:
        with self._lock:
            return sum(len(rows) for rows in self._parts())

    def _parts(self) -> tuple[Rows, Rows]:
        """The snapshot and what was added since. Raises StoreError when the index is closed."""
        if self._held is None:
            raise StoreError(f"index {self._folder.name} is closed")
        return self._held, self._fresh

    def add(self, keys: KeyArray, vectors: FloatArray) -> None:
        """As `VectorIndex.add`. A key that is given twice takes its last vector."""
        require_vectors(self.space, vectors)
        if not len(keys):
            return
        kept = last_of_each(keys)
        self._change(Change(keys[kept], stored(vectors[kept])))

    def remove(self, keys: KeyArray) -> int:
        with self._lock:
            there = np.concatenate([rows.keys[rows.find(keys)] for rows in self._parts()])
            if len(there):
                self._change(Change(there, None))
            return len(there)

    def search(self, query: FloatArray, limit: int, among: KeyArray | None = None) -> Hits:
        """As `VectorIndex.search`: exact among few, approximate among many."""
        require_vectors(self.space, query[None])
        with self._lock:
            parts = [(rows, None if among is None else rows.find(among)) for rows in self._parts()]
            old, new = (rows.nearest(query, limit, places) for rows, places in parts)
        return best(np.concatenate([old.keys, new.keys]), np.concatenate([old.scores, new.scores]), limit)

    def snapshot(self) -> None:
        """Writes a new generation and maps it. Raises StoreError; the old generation then stays."""
        with self._lock:
            generation = self._manifest.generation + 1
            try:
                count = write_rows(self._rows_path(generation), *self._parts())
                journal = Journal(self._journal_path(generation), self.space.dim)
                manifest = Manifest(space=self.space, generation=generation, rows=count)
                write_whole(self._folder / MANIFEST, manifest.model_dump_json(), is_synced=True)
            except OSError as error:
                raise StoreError(f"index {self._folder.name}: no snapshot could be written ({error})") from error
            self._journal, self._manifest = journal, manifest
            self._held = self._mapped()
            self._fresh = Rows.empty(self._held.normals)
            self._remove_strays()

    def close(self) -> None:
        """Writes a snapshot when many changes would have to be read at the next start."""
        with self._lock:
            if self._held is None:
                return
            if self._journal.size > SNAPSHOT_BYTES // 8:
                # The journal has it all: without the snapshot the next start takes longer, nothing more.
                with contextlib.suppress(StoreError):
                    self.snapshot()
            self.abandon()

    def abandon(self) -> None:
        """Lets go of the rows as a crash would."""
        with self._lock:
            self._held = None

    def _change(self, change: Change) -> None:
        with self._lock:
            self._parts()  # raises when closed, before anything is written
            self._journal.append(change)
            self._apply(change)
            mapped_bytes = file_bytes(self._manifest.rows, self.space.dim) if self._manifest.generation else 0
            if self._journal.size > max(SNAPSHOT_BYTES, mapped_bytes // 2):
                self.snapshot()

    def _apply(self, change: Change) -> None:
        """Makes a change of the journal in memory."""
        for rows in self._parts():
            rows.remove(change.keys)
        if change.vectors is not None:
            self._fresh.add(change.keys, change.vectors)

    def _begin(self) -> Manifest:
        manifest = Manifest(space=self.space, generation=0, rows=0)
        write_whole(self._folder / MANIFEST, manifest.model_dump_json(), is_synced=True)
        return manifest

    def _mapped(self) -> Rows:
        """The snapshot; without rows in the first generation, which has none."""
        if not self._manifest.generation:
            return Rows.empty(hyperplanes(self.space.dim))
        path, size = self._rows_path(self._manifest.generation), file_bytes(self._manifest.rows, self.space.dim)
        if not path.exists() or path.stat().st_size != size:
            raise DamagedIndexError(self._folder.name, f"{path.name} does not have its {size} bytes")
        return mapped_rows(path, self._manifest.rows, self.space.dim)

    def _rows_path(self, generation: int) -> Path:
        return self._folder / f"rows-{generation}.bin"

    def _journal_path(self, generation: int) -> Path:
        return self._folder / f"journal-{generation}.log"

    def _remove_strays(self) -> None:
        """Files of other generations, which a crash left."""
        generation = self._manifest.generation
        kept = {MANIFEST, self._rows_path(generation).name, self._journal_path(generation).name}
        for path in self._folder.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)


def last_of_each(keys: KeyArray) -> NDArray[np.intp]:
    """Places of the last occurrence of each key, in order."""
    _, places = np.unique(keys[::-1], return_index=True)
    return np.sort(len(keys) - 1 - places)


def read_manifest(folder: Path) -> Manifest | None:
    """Raises DamagedIndexError when there is one and it cannot be understood."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise DamagedIndexError(folder.name, f"{MANIFEST} is not the description of an index") from error


def sections(n: int, dim: int) -> list[tuple[str, tuple[int, ...]]]:
    """Type and shape of each section of a snapshot, little-endian, the rows sorted by key: normals, keys, sketches and
    vectors."""
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
