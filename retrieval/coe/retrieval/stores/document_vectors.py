"""Vectors of stores' chunks: an index per store and document space, and word indexes built on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from coe.retrieval.routing.fusion import Ranking
from coe.retrieval.stores.chunk_table import ChunkTable
from coe.retrieval.types import (
    BASE,
    EVIDENCE,
    DenseExpert,
    KeyArray,
    LexicalExpert,
    LexicalIndex,
    RetrievalExpert,
    VectorIndex,
    VectorIndexes,
    VectorSpace,
    is_among,
)
from coe.router.types import FloatArray

MAX_WORD_INDEXES = 32
MAX_INDEXED_AT_ONCE = 1_000
"""Number of chunks whose words are indexed in about a tenth of a second."""

EMPTY: Ranking = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


@dataclass(frozen=True)
class WordIndex:
    """A word index with the keys of its rows, sorted, and the stamp of the store at its build."""

    index: LexicalIndex
    keys: KeyArray
    stamp: tuple[int, int]


class StaleWordsError(Exception):
    """A changed store that is too large to index its words while other requests wait."""


class DocumentVectors:
    """The vectors of all stores. Methods block and are safe in any number of threads.

    Args:
        open_indexes: opens the indexes of one document space, by a name for its folder or table.
    """

    def __init__(
        self,
        experts: Mapping[str, RetrievalExpert],
        chunks: ChunkTable,
        open_indexes: Callable[[str, VectorSpace], VectorIndexes],
    ) -> None:
        self._experts, self._chunks = experts, chunks
        self._encoders = {expert.space: expert for expert in dense_first_base(experts)}
        self._indexes = {
            space: open_indexes(index_name(space, self.base_space), VectorSpace(fingerprint=space, dim=expert.dim))
            for space, expert in self._encoders.items()
        }
        self._complete: set[str] = set()  # stores whose index of base was found to have what was read
        self._words: dict[tuple[str, str], WordIndex] = {}
        self._words_lock = threading.Lock()

    @property
    def base_space(self) -> str:
        return self._experts[BASE].space

    @property
    def spaces(self) -> tuple[str, ...]:
        """Every space that documents are encoded for, base's first."""
        return tuple(self._encoders)

    def index(self, store_id: str, space: str) -> VectorIndex:
        """Return a store's index; may raise StoreError, or VectorSpaceError if another encoder filled it."""
        return self._indexes[space].open(store_id)

    def add(self, store_id: str, space: str, keys: KeyArray) -> None:
        """Encode the chunks of these keys for a space and add them, at once: pass a few at a time."""
        texts = self._chunks.texts_of(keys.tolist())
        left = np.array(list(texts), dtype=np.int64)
        if len(left):
            self.index(store_id, space).add(left, self._encoders[space].encode_documents(list(texts.values())))

    def remove(self, store_id: str, keys: KeyArray) -> None:
        if len(keys):
            for space in self._encoders:
                self.index(store_id, space).remove(keys)

    def drop(self, store_id: str) -> None:
        """Delete every index of a store."""
        for indexes in self._indexes.values():
            indexes.drop(store_id)
        self._complete.discard(store_id)
        with self._words_lock:
            for key in [key for key in self._words if key[0] == store_id]:
                del self._words[key]

    def behind(self, store_id: str) -> list[str]:
        """Return the spaces that lack vectors of a store, because an expert is new or an index was lost."""
        return [space for space in self._encoders if not self.is_complete(store_id, space)]

    def bytes_of(self, count: int) -> int:
        """Return the bytes of the vectors of `count` chunks, in half precision."""
        return count * sum(2 * expert.dim for expert in self._encoders.values())

    def is_complete(self, store_id: str, space: str) -> bool:
        """Return whether a space has every chunk that base has, and base all chunks of completely read files.

        The latter is counted until it was true once. Files that are being read may differ by a batch.
        """
        base = self.index(store_id, self.base_space)
        if store_id not in self._complete:
            read = self._chunks.count_read(store_id)
            if len(base) < read:
                return False
            self._complete.add(store_id)
        return space == self.base_space or len(self.index(store_id, space)) >= len(base)

    def can_search(self, store_id: str, expert: str) -> bool:
        """Return whether an expert has a complete index of a store's documents."""
        chosen = self._experts[expert]
        return isinstance(chosen, LexicalExpert) or self.is_complete(store_id, chosen.space)

    def search(
        self,
        store_id: str,
        name: str,
        text: str,
        vector: FloatArray | None,
        limit: int,
        among: KeyArray | None,
        *,
        enough: int,
        may_take_long: bool,
    ) -> Ranking:
        """Return the best chunks by one expert.

        Args:
            vector: (d,) by that expert; None for one that searches by words.
            among: only these keys; None for all.
            enough: as in `VectorIndex.search`.

        Raises:
            StaleWordsError: the word index must be rebuilt first, and `may_take_long` is false.
        """
        expert = self._experts[name]
        if isinstance(expert, LexicalExpert):
            words = self._word_index(store_id, expert, may_take_long=may_take_long)
            return by_words(words, text, limit, among)
        assert vector is not None
        return self.index(store_id, expert.space).search(vector, limit, among, enough)

    def evidence(self, store_id: str, name: str, text: str, keys: KeyArray) -> FloatArray:
        """Return features (k, `EVIDENCE`) of chunks by the word index of the last search; 0 for chunks outside it."""
        expert = self._experts[name]
        assert isinstance(expert, LexicalExpert)
        words = self._words.get((store_id, name)) or self._word_index(store_id, expert, may_take_long=False)
        found = np.zeros((len(keys), len(EVIDENCE)), dtype=np.float32)
        rows = np.searchsorted(words.keys, keys)
        is_known = np.isin(keys, words.keys)
        found[is_known] = words.index.evidence(text, rows[is_known])
        return found

    def close(self) -> None:
        for indexes in self._indexes.values():
            indexes.close()

    def _word_index(self, store_id: str, expert: LexicalExpert, *, may_take_long: bool) -> WordIndex:
        """Return the current word index of a store, rebuilt after a change; may raise StaleWordsError."""
        place, stamp = (store_id, expert.name), self._chunks.stamp(store_id)
        held = self._words.get(place)
        if held is not None and held.stamp == stamp:
            return held
        if stamp[0] > MAX_INDEXED_AT_ONCE and not may_take_long:
            raise StaleWordsError(store_id)
        keys, texts = self._chunks.texts(store_id)
        made = WordIndex(expert.index(texts), keys, stamp)
        with self._words_lock:
            self._words.pop(place, None)
            while len(self._words) >= MAX_WORD_INDEXES:
                del self._words[next(iter(self._words))]
            self._words[place] = made
        return made


def by_words(words: WordIndex, text: str, limit: int, among: KeyArray | None) -> Ranking:
    """Return the best chunks by their words, with scores relative to the best, because BM25 has no bound."""
    if not len(words.keys):
        return EMPTY
    rows, scores = words.index.search(text, limit, None if among is None else is_among(words.keys, among))
    return words.keys[rows], np.asarray(scores / scores[0] if len(scores) else scores, dtype=np.float32)


def dense_first_base(experts: Mapping[str, RetrievalExpert]) -> list[DenseExpert]:
    """Return one dense expert per document space, base's first."""
    dense = [expert for expert in (experts[BASE], *experts.values()) if isinstance(expert, DenseExpert)]
    seen: dict[str, DenseExpert] = {}
    for expert in dense:
        seen.setdefault(expert.space, expert)
    return list(seen.values())


def index_name(space: str, base_space: str) -> str:
    """Return the name of a space's indexes. Base's name is fixed, so that another base is detected and rejected."""
    return "base" if space == base_space else space[:16]
