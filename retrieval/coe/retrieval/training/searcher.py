"""The exact search of a collection by every expert, and nDCG@10 of every arm. n queries, D documents, m arms."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from coe.base.embedding_cache import CACHE_FILE, CachedEncoder
from coe.base.errors import DataError
from coe.cli.progress import Progress, silent
from coe.retrieval.build_experts import first_lexical
from coe.retrieval.routing.fusion import POOL, Evidence, Ranking, fuse, fusions
from coe.retrieval.training.collection import Collection, Queries
from coe.retrieval.training.learned_fusion import Candidates, candidates
from coe.retrieval.training.ndcg import CUT, ndcg, rank
from coe.retrieval.types import BASE, Arm, DenseExpert, LexicalIndex, RetrievalExpert
from coe.router.protocols import Encoder
from coe.router.types import FloatArray, IntArray

BLOCK = 256
"""Number of queries whose similarities to all documents are in memory at once."""


@dataclass(frozen=True)
class DocumentMemory:
    """A folder of the stores' document vectors, kept between refreshes of the pilots, for one process at a time.

    Each refresh reads the vectors of the last one and writes those that it used, which then replace them. So an hourly
    refresh does not encode a store every hour, and vectors of deleted documents disappear.
    """

    folder: Path

    def begin(self) -> None:
        """Delete what an earlier run left unfinished."""
        shutil.rmtree(self.folder / "next", ignore_errors=True)

    def encode(self, documents: Encoder, texts: Sequence[str], on_progress: Callable[[int], None]) -> FloatArray:
        """Return vectors (n, d) by the document side of an expert; encode only what the last refresh has not.

        Raises:
            DataError: the folder cannot be used.
        """
        last = CachedEncoder(documents, self.folder / "last")
        return CachedEncoder(last, self.folder / "next", on_progress=on_progress).encode(texts)

    def keep(self) -> None:
        """Delete vectors that this run did not use; may raise DataError."""
        try:
            (self.folder / "next" / CACHE_FILE).replace(self.folder / "last" / CACHE_FILE)
        except OSError as error:
            raise DataError(f"{self.folder}: vectors of documents cannot be kept ({error.strerror})") from error


@dataclass(frozen=True)
class QuerySide:
    """One side of an expert as an encoder for the cache; its fingerprint identifies its vectors."""

    expert: DenseExpert
    is_document: bool

    @property
    def dim(self) -> int:
        return self.expert.dim

    @property
    def fingerprint(self) -> str:
        return self.expert.space if self.is_document else self.expert.fingerprint

    @property
    def is_inline(self) -> bool:
        return False

    def encode(self, texts: Sequence[str]) -> FloatArray:
        return self.expert.encode_documents(texts) if self.is_document else self.expert.encode_queries(texts)


@dataclass
class Searcher:
    """The search of one collection. Vectors and indexes are built on demand and cached, documents in `memory`."""

    collection: Collection
    experts: Mapping[str, RetrievalExpert]
    cache: Path
    progress: Progress = silent
    memory: DocumentMemory | None = None
    _documents: dict[str, FloatArray] = field(default_factory=dict)
    _lexical: dict[str, LexicalIndex] = field(default_factory=dict)

    def encode(self, expert: DenseExpert, texts: Sequence[str], is_document: bool) -> FloatArray:
        side, kind = QuerySide(expert, is_document), "documents" if is_document else "queries"

        def report(done: int) -> None:
            self.progress(f"{self.collection.name}: {expert.name} encodes {kind}, {done} of at most {len(texts)}")

        if is_document and self.memory is not None:
            return self.memory.encode(side, texts, report)
        return CachedEncoder(side, self.cache, on_progress=report).encode(texts)

    def documents(self, expert: DenseExpert) -> FloatArray:
        """Return document vectors (D, d) in the expert's document space."""
        if expert.space not in self._documents:
            self._documents[expert.space] = self.encode(expert, self.collection.documents, True)
        return self._documents[expert.space]

    def rankings(self, name: str, texts: Sequence[str]) -> list[Ranking]:
        """Return the `POOL` best documents of each query by one expert."""
        expert = self.experts[name]
        if not isinstance(expert, DenseExpert):
            return [self.words(name).search(text, POOL) for text in texts]
        documents, queries = self.documents(expert), self.encode(expert, texts, False)
        found: list[Ranking] = []
        for start in range(0, len(texts), BLOCK):
            for scores in queries[start : start + BLOCK] @ documents.T:
                rows = np.array(rank(scores, self.collection.document_ids, POOL), dtype=np.int64)
                found.append((rows, scores[rows]))
        return found

    def words(self, name: str) -> LexicalIndex:
        """Return the index of an expert over words."""
        if name not in self._lexical:
            expert = self.experts[name]
            assert not isinstance(expert, DenseExpert)
            self.progress(f"{self.collection.name}: {name} indexes {len(self.collection.documents)} documents")
            self._lexical[name] = expert.index(self.collection.documents)
        return self._lexical[name]

    def arm_scores(self, queries: Queries, arms: Sequence[Arm]) -> FloatArray:
        """Return nDCG@10 (n, m) of every arm on every query."""
        found = {name: self.rankings(name, queries.texts) for name in dict.fromkeys(m for a in arms for m in a.members)}
        lexical = {arm.members[-1] for arm in arms if len(arm.members) > 1}
        ranked: list[list[list[int]]] = [[] for _ in arms]
        for row, text in enumerate(queries.texts):
            seen = [rankings[row][0] for rankings in found.values()]
            said = {name: evidence_once(partial(self.words(name).evidence, text), seen) for name in lexical}
            for column, arm in enumerate(arms):
                rankings = [found[member][row] for member in arm.members]
                ranked[column].append(fuse(rankings, arm, CUT, said.get(arm.members[-1]))[0].tolist())
        scores = np.zeros((len(queries), len(arms)), dtype=np.float32)
        for column, rows in enumerate(ranked):
            scores[:, column] = ndcg(rows, queries.grades)
        return scores

    def candidates(self, queries: Queries, members: Sequence[str]) -> list[Candidates]:
        """Return the ranking input of each query for a fusion of members, the last of which searches words."""
        found = [self.rankings(name, queries.texts) for name in members]
        words = self.words(members[-1])
        return [
            candidates([rankings[row] for rankings in found], partial(words.evidence, text), grades)
            for row, (text, grades) in enumerate(zip(queries.texts, queries.grades, strict=True))
        ]


def evidence_once(evidence: Evidence, found: Sequence[IntArray]) -> Evidence:
    """Return the evidence of found documents, computed now because many arms ask for it."""
    rows = np.unique(np.concatenate(found))
    table = evidence(rows)
    return lambda asked: table[np.searchsorted(rows, asked)]


def all_arms(experts: Mapping[str, RetrievalExpert]) -> tuple[Arm, ...]:
    """Return base alone, every other expert alone, and the fusions of every dense expert with the first lexical one."""
    lexical = first_lexical(experts)
    dense = [name for name, expert in experts.items() if isinstance(expert, DenseExpert)]
    singles = [Arm(members=(name,), weights=(1.0,)) for name in (BASE, *(n for n in experts if n != BASE))]
    fused = [arm for name in dense if lexical is not None for arm in fusions(name, lexical)]
    return (*singles, *fused)
