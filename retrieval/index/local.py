"""Indexes on local disk: an HNSW graph (Malkov & Yashunin 2018; usearch) in a memory-mapped snapshot, and a journal.

A folder holds `index.json` (space, generation), `graph-<generation>.usearch` and `journal-<generation>.log`. A mapped
graph cannot change, so a few changes live beside it: a small graph of what was added, a set of what was removed. Many
changes bring the whole graph into memory; the next snapshot writes it out and maps it again. A snapshot becomes the
index by one rename of `index.json`, so a crash finds the old generation or the new one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from retrieval.index.graph import contained, is_among, last_of_each, matches, new_graph, restored, rows_of
from retrieval.index.journal import Change, Journal, stored, sync_folder
from retrieval.index.space import Hits, KeyArray, VectorSpace, best, require_same_space, require_vectors
from router.errors import DamagedIndexError, StoreError
from router.types import FloatArray, Record

if TYPE_CHECKING:
    from usearch.index import Index

MANIFEST = "index.json"
FOLD_CHANGES = 20_000  # changes beside a mapped graph before the graph is brought into memory
BULK_CHANGES = 2_000  # added in one call: more of the like will follow
SNAPSHOT_BYTES = 64 * 1024 * 1024  # of journal; a larger graph waits for half its own size
EXACT_AMONG = 5_000  # a filter that leaves fewer keys is answered exactly


class Manifest(Record):
    """What `index.json` says."""

    schema_version: int = 1
    space: VectorSpace
    generation: int
    graph_bytes: int


class LocalIndexes:
    """A folder of indexes. One process at a time may have it open: whoever makes this keeps others out."""

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
        MissingExtraError: usearch is not installed.
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
        self._graph = self._mapped()
        self._is_mapped = self._graph is not None
        self._fresh: Index = new_graph(space.dim)
        if self._graph is None:
            self._graph = new_graph(space.dim)
        self._removed: set[int] = set()  # of the mapped graph
        self._journal = Journal(self._journal_path(), space.dim)
        self._remove_strays()
        for change in self._journal.replay():
            self._apply(change)

    def __len__(self) -> int:
        with self._lock:
            return len(self._held) - len(self._removed) + len(self._fresh)

    @property
    def _held(self) -> Index:
        if self._graph is None:
            raise StoreError(f"index {self._folder.name} is closed")
        return self._graph

    def add(self, keys: KeyArray, vectors: FloatArray) -> None:
        """As `VectorIndex.add`. A key that stands twice takes its last vector."""
        require_vectors(self.space, vectors)
        if not len(keys):
            return
        kept = last_of_each(keys)
        self._change(Change(keys[kept], stored(vectors[kept])))

    def remove(self, keys: KeyArray) -> int:
        with self._lock:
            there = np.unique(keys)
            there = there[self._contains(there)]
            if len(there):
                self._change(Change(there, None))
            return len(there)

    def search(self, query: FloatArray, limit: int, among: KeyArray | None = None) -> Hits:
        """As `VectorIndex.search`: approximate, exact among few keys."""
        require_vectors(self.space, query[None])
        with self._lock:
            total = len(self)
            if among is not None and len(among) <= EXACT_AMONG:
                return self._exact(query, limit, among)
            if not total or limit < 1:
                return Hits(np.zeros(0, np.int64), np.zeros(0, np.float32))
            wanted = None if among is None else np.sort(among)
            share = 1.0 if wanted is None else min(1.0, len(wanted) / total)
            count = min(total, int(np.ceil(limit / share)))
            while True:
                hits, is_all = self._nearest(query, count, wanted)
                if len(hits.keys) >= limit or is_all:
                    return Hits(hits.keys[:limit], hits.scores[:limit])
                count *= 2

    def snapshot(self) -> None:
        """Writes the graph out as a new generation and maps it. Raises StoreError; the old generation then stays."""
        with self._lock:
            self._fold()
            old = self._manifest
            new = old.model_copy(update={"generation": old.generation + 1})
            graph = self._folder / f"graph-{new.generation}.usearch"
            try:
                self._held.save(str(graph))
                sync_file(graph)
                new = new.model_copy(update={"graph_bytes": graph.stat().st_size})
                journal = Journal(self._folder / f"journal-{new.generation}.log", self.space.dim)
                write_manifest(self._folder, new)
            except (OSError, RuntimeError) as error:
                raise StoreError(f"index {self._folder.name}: no snapshot could be written ({error})") from error
            self._journal, self._manifest = journal, new
            self._graph, self._is_mapped = self._mapped(), True
            self._remove_strays()

    def close(self) -> None:
        """Writes a snapshot when many changes would have to be read at the next start."""
        with self._lock:
            if self._graph is None:
                return
            if self._journal.size > SNAPSHOT_BYTES // 8:
                # The journal has it all: without the snapshot the next start takes longer, nothing more.
                with contextlib.suppress(StoreError):
                    self.snapshot()
            self.abandon()

    def abandon(self) -> None:
        """Lets go of the graph as a crash would."""
        with self._lock:
            self._graph = None
            self._fresh = new_graph(self.space.dim)
            self._removed = set()

    def _change(self, change: Change) -> None:
        with self._lock:
            self._held  # noqa: B018 - raises when closed, before anything is written
            self._journal.append(change)
            self._apply(change)
            if self._journal.size > max(SNAPSHOT_BYTES, self._manifest.graph_bytes // 2):
                self.snapshot()

    def _apply(self, change: Change) -> None:
        """What the journal says, done in memory."""
        self._forget(change.keys)
        beside = len(self._fresh) + len(self._removed)
        if beside > FOLD_CHANGES or (change.vectors is not None and len(change.keys) >= BULK_CHANGES):
            self._fold()  # before adding: what is added beside the graph has to be added once more
        if change.vectors is not None:
            (self._fresh if self._is_mapped else self._held).add(change.keys, change.vectors)

    def _forget(self, keys: KeyArray) -> None:
        """Takes out those of the keys that are there."""
        for key in keys[contained(self._fresh, keys)].tolist():
            self._fresh.remove(key)
        held = keys[contained(self._held, keys)]
        if self._is_mapped:
            self._removed.update(held.tolist())
        else:
            for key in held.tolist():
                self._held.remove(key)

    def _contains(self, keys: KeyArray) -> NDArray[np.bool_]:
        is_removed = np.array([key in self._removed for key in keys.tolist()], dtype=bool)
        is_held: NDArray[np.bool_] = contained(self._fresh, keys) | (contained(self._held, keys) & ~is_removed)
        return is_held

    def _fold(self) -> None:
        """Brings a mapped graph into memory, with its changes."""
        if not self._is_mapped:
            return
        graph = restored(self._graph_path(), is_mapped=False)
        if self._removed:
            graph.remove(np.array(sorted(self._removed), dtype=np.int64))
        if len(self._fresh):
            keys = np.asarray(self._fresh.keys[: len(self._fresh)]).astype(np.int64)
            graph.add(keys, rows_of(self._fresh, keys))
        self._graph, self._fresh, self._removed, self._is_mapped = graph, new_graph(self.space.dim), set(), False

    def _nearest(self, query: FloatArray, count: int, wanted: KeyArray | None) -> tuple[Hits, bool]:
        """Those of the `count` nearest that are wanted (sorted; None: all), and whether nothing more can be found."""
        keys, scores, is_all = [], [], True
        for graph, gone in ((self._held, self._removed), (self._fresh, set())):
            if not len(graph):
                continue
            asked = min(count + min(len(gone), count), len(graph))
            found = matches(graph, query, asked)
            is_all = is_all and asked == len(graph)
            kept = np.array([key not in gone for key in found.keys.tolist()], dtype=bool)
            if wanted is not None:
                kept &= is_among(found.keys, wanted)
            keys.append(found.keys[kept])
            scores.append(found.scores[kept])
        return best(np.concatenate(keys), np.concatenate(scores), count), is_all

    def _exact(self, query: FloatArray, limit: int, among: KeyArray) -> Hits:
        keys = np.unique(among)
        keys = keys[self._contains(keys)]
        if not len(keys):
            return Hits(keys, np.zeros(0, np.float32))
        is_fresh = contained(self._fresh, keys)
        fresh, held = keys[is_fresh], keys[~is_fresh]
        vectors = np.concatenate([rows_of(self._fresh, fresh), rows_of(self._held, held)])
        keys = np.concatenate([fresh, held])
        return best(keys, np.asarray(vectors @ query, dtype=np.float32), limit)

    def _begin(self) -> Manifest:
        manifest = Manifest(space=self.space, generation=0, graph_bytes=0)
        write_manifest(self._folder, manifest)
        return manifest

    def _mapped(self) -> Index | None:
        """The snapshot's graph; None in the first generation, which has none."""
        if not self._manifest.generation:
            return None
        path, size = self._graph_path(), self._manifest.graph_bytes
        if not path.exists() or path.stat().st_size != size:
            raise DamagedIndexError(self._folder.name, f"{path.name} is not the {size} bytes it should be")
        return restored(path, is_mapped=True)

    def _graph_path(self) -> Path:
        return self._folder / f"graph-{self._manifest.generation}.usearch"

    def _journal_path(self) -> Path:
        return self._folder / f"journal-{self._manifest.generation}.log"

    def _remove_strays(self) -> None:
        """Files of other generations, which a crash left."""
        kept = {MANIFEST, self._graph_path().name, self._journal_path().name}
        for path in self._folder.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)


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


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """In place of the old one, in one step."""
    path = folder / f"{MANIFEST}.new"
    path.write_text(manifest.model_dump_json())
    sync_file(path)
    path.replace(folder / MANIFEST)
    sync_folder(folder)


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
