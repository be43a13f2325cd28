"""Vectors of the stores' documents, kept from one refresh of the pilots to the next.

Each refresh looks them up in those of the last one and writes down what it used, which then takes their place. So a
store that is refreshed every hour is not encoded every hour, and documents that are gone leave no vectors for longer.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from base.errors import DataError
from retrieval.training.searcher import QuerySide
from retrieval.types import DenseExpert, RetrievalExpert
from router.embedding_cache import CACHE_FILE, CachedEncoder
from router.types import FloatArray


@dataclass(frozen=True)
class RememberingExpert:
    """An expert that encodes no document that the last refresh has encoded. Queries are people's, and not kept."""

    expert: DenseExpert
    last: Path
    next: Path

    @property
    def name(self) -> str:
        return self.expert.name

    @property
    def space(self) -> str:
        return self.expert.space

    @property
    def fingerprint(self) -> str:
        return self.expert.fingerprint

    @property
    def dim(self) -> int:
        return self.expert.dim

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        return self.expert.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        """Raises DataError when the folder cannot be used."""
        known = CachedEncoder(QuerySide(self.expert, is_document=True), self.last)
        return CachedEncoder(known, self.next).encode(texts)


@dataclass(frozen=True)
class DocumentMemory:
    """The vectors in a folder. One process at a time."""

    folder: Path

    def remembering(self, experts: Mapping[str, RetrievalExpert]) -> dict[str, RetrievalExpert]:
        """The experts, those with vectors behind the memory. What an earlier run did not bring to its end goes."""
        last, following = self.folder / "last", self.folder / "next"
        shutil.rmtree(following, ignore_errors=True)
        return {
            name: RememberingExpert(expert, last, following) if isinstance(expert, DenseExpert) else expert
            for name, expert in experts.items()
        }

    def keep(self) -> None:
        """Forgets what this run did not use. Raises DataError."""
        try:
            (self.folder / "next" / CACHE_FILE).replace(self.folder / "last" / CACHE_FILE)
        except OSError as error:
            raise DataError(f"{self.folder}: vectors of documents cannot be kept ({error.strerror})") from error
