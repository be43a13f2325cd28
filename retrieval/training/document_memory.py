"""Vectors of the stores' documents, kept from one refresh of the pilots to the next.

Each refresh looks them up in those of the last one and writes down what it used, which then takes their place. So a
store that is refreshed every hour is not encoded every hour, and documents that are gone leave no vectors for longer.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from base.embedding_cache import CACHE_FILE, CachedEncoder
from base.errors import DataError
from router.protocols import Encoder
from router.types import FloatArray


@dataclass(frozen=True)
class DocumentMemory:
    """The vectors in a folder. One process at a time."""

    folder: Path

    def begin(self) -> None:
        """Forgets what an earlier run did not bring to its end."""
        shutil.rmtree(self.folder / "next", ignore_errors=True)

    def encode(self, documents: Encoder, texts: Sequence[str], on_progress: Callable[[int], None]) -> FloatArray:
        """(n, d) by the document side of an expert, except what the last refresh has encoded. Raises DataError when
        the folder cannot be used."""
        last = CachedEncoder(documents, self.folder / "last")
        return CachedEncoder(last, self.folder / "next", on_progress=on_progress).encode(texts)

    def keep(self) -> None:
        """Forgets what this run did not use. Raises DataError."""
        try:
            (self.folder / "next" / CACHE_FILE).replace(self.folder / "last" / CACHE_FILE)
        except OSError as error:
            raise DataError(f"{self.folder}: vectors of documents cannot be kept ({error.strerror})") from error
