"""A cache of embeddings on disk, so that every command encodes a text once per encoder.

It is one SQLite file. The key is the SHA-256 of encoder fingerprint and text. The value is the vector in float32,
exactly as the encoder returned it. Texts are not stored.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import DataError

FloatArray = NDArray[np.float32]

CACHE_FILE = "embeddings.db"
BUSY_S = 60.0
"""Seconds to wait for another process that writes to the cache, before the call fails with DataError."""
READ_ROWS = 500
"""Number of keys in one query; SQLite allows at least 999 parameters."""


class TextEncoder(Protocol):
    """The part of `router.protocols.Encoder` that the cache uses; the members are documented there."""

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def is_inline(self) -> bool: ...

    def encode(self, texts: Sequence[str]) -> FloatArray: ...


@dataclass(frozen=True)
class CachedEncoder:
    """An encoder that caches its vectors in a folder. Several processes may share it, because SQLite locks the file."""

    encoder: TextEncoder
    folder: Path
    batch_size: int = 64
    on_progress: Callable[[int], None] = lambda _: None

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    @property
    def is_inline(self) -> bool:
        """False, because the cache waits for a disk."""
        return False

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return the vectors of texts as an array of shape (n, d), and encode only those that are not cached.

        Raises:
            DataError: the cache cannot be used. Errors of the encoder pass through.
        """
        keys = [self.key(text) for text in texts]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.folder / CACHE_FILE, timeout=BUSY_S)) as db:
                db.execute("CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
                known = self.read(db, keys)
                self.add(db, {key: text for key, text in zip(keys, texts, strict=True) if key not in known}, known)
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{self.folder / CACHE_FILE}: the embedding cache cannot be used ({error})") from error
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, self.dim), dtype=np.float32)

    def key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.fingerprint}\0{text}".encode("utf-8", "surrogatepass")).digest()

    def read(self, db: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, FloatArray]:
        found: dict[bytes, FloatArray] = {}
        for start in range(0, len(keys), READ_ROWS):
            part = keys[start : start + READ_ROWS]
            marks = ",".join("?" * len(part))
            for key, vector in db.execute(f"SELECT key, vector FROM embeddings WHERE key IN ({marks})", part):
                found[key] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
        return found

    def add(self, db: sqlite3.Connection, missing: dict[bytes, str], known: dict[bytes, FloatArray]) -> None:
        """Encode the missing texts and store each batch at once, so that an interrupted run can resume."""
        names = list(missing)
        for start in range(0, len(names), self.batch_size):
            part = names[start : start + self.batch_size]
            vectors = self.encoder.encode([missing[key] for key in part])
            known |= dict(zip(part, vectors, strict=True))
            rows = [(key, vector.astype("<f4").tobytes()) for key, vector in zip(part, vectors, strict=True)]
            with db:
                db.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)
            self.on_progress(start + len(part))
