"""The terms of retrieval: experts, rankings, decisions, vector indexes. Shapes: n queries, d dimensions, m experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from pydantic import Field

from coe.base.errors import VectorSpaceError
from coe.router.config import retrieval as retrieval_config
from coe.router.protocols import Encoder
from coe.router.types import BoolArray, FloatArray, IntArray, Record

BASE = retrieval_config.BASE
"""The name of the expert that always exists: the encoder of the documents."""


EVIDENCE = ("coverage", "phrases", "length")
"""Features of a document and a query from a word index, besides its score, each in [0, 1]."""


SPARSE = 64  # keys between the first and the last, for each that is there


class NamedExpert(Protocol):
    """The identity of an expert."""

    @property
    def name(self) -> str: ...

    @property
    def space(self) -> str:
        """Fingerprint of its document encoding; an index of another space must reject it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of its computation on queries."""
        ...


@runtime_checkable
class DenseExpert(NamedExpert, Protocol):
    """An expert that maps queries to vectors in a document space."""

    @property
    def dim(self) -> int: ...

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        """Return unit rows (n, d) float32, a zero row for an empty text; may raise BackendError."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        """Return unit rows (n, d) float32 by the frozen document side."""
        ...


@runtime_checkable
class LexicalIndex(Protocol):
    """An index that finds documents by their words."""

    def search(self, text: str, count: int, wanted: BoolArray | None = None) -> tuple[IntArray, FloatArray]:
        """Return the rows of at most `count` documents that share a word with the query, best first, and their scores.

        Args:
            wanted: mask (n,) of documents that may be found; None for all.
        """
        ...

    def evidence(self, text: str, rows: IntArray) -> FloatArray:
        """Return the features (k, `EVIDENCE`) of documents at rows (k,) for a query.

        Coverage is the share of its words in the document, weighted by rarity. Phrases is the share of its adjacent
        words that are adjacent there. The last feature is the document's length.
        """
        ...


@runtime_checkable
class LexicalExpert(NamedExpert, Protocol):
    """An expert that searches texts directly: it has no vectors."""

    def index(self, texts: Sequence[str]) -> LexicalIndex:
        """Build an index in memory; row i is text i."""
        ...


RetrievalExpert = DenseExpert | LexicalExpert


ExpertOf = Callable[[str, Encoder], RetrievalExpert]
"""A function from a kind's `build` that builds the expert of a name over a base, or raises ArtifactError."""


@dataclass(frozen=True)
class BaseExpert:
    """The section's encoder, for queries and documents."""

    encoder: Encoder
    name: str = BASE

    @property
    def space(self) -> str:
        return self.encoder.fingerprint

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    @property
    def dim(self) -> int:
        return self.encoder.dim

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        return self.encoder.encode(texts)

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        return self.encoder.encode(texts)


class Arm(Record):
    """One way to search: an expert, or several whose rankings are fused.

    A plain and a learned fusion also weigh `EVIDENCE`, from the last member, an expert over words. The weights of a
    learned fusion come from the labelled queries of one data set.
    """

    members: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] = Field(min_length=1, description="of each member")
    evidence: tuple[float, ...] = Field(default=(), description="weights of EVIDENCE; empty where rankings decide")
    learned_on: str | None = Field(default=None, description="data set that taught the weights")

    @property
    def name(self) -> str:
        """The name: `medical`, `medical+bm25` (plain), `medical+bm25:0.7` (by scores), `medical+bm25:faq` (learned)."""
        joined = "+".join(self.members)
        if len(self.members) == 1 or (self.evidence and self.learned_on is None):
            return joined
        return f"{joined}:{self.learned_on or format(self.weights[0], 'g')}"


class RetrievalReason(StrEnum):
    """Reasons for choosing an expert."""

    PILOTS = "pilots"  # best predicted gain over the plain choice, from labelled queries nearby
    PLAIN = "plain"  # labelled queries are near, and nothing is predicted to beat the plain choice here
    UNPREPARED = "unprepared"  # nothing labelled is near: the plain choice, base fused with BM25 if that is there
    EXPLICIT = "explicit"  # the client named the expert
    RERANKER = "reranker"  # it reads query and document together
    ONLY = "only"  # there is no pilot library, or no other expert


class RetrievalDecision(Arm):
    """The arm that serves one query. If it has two members, both search and `routing.fusion` joins their rankings."""

    runner_up: str | None = None
    scores: dict[str, float] = Field(
        default_factory=dict, description="arm -> predicted nDCG@10 minus the plain choice's"
    )
    similarity: float | None = Field(default=None, description="cosine to the nearest labelled query")
    reason: RetrievalReason
    library_version: str = Field(default="none", description="content hash of the pilot library")

    @property
    def expert(self) -> str:
        """The first member."""
        return self.members[0]


def single(expert: str, reason: RetrievalReason, version: str = "none") -> RetrievalDecision:
    """Return the decision for one expert without a comparison."""
    return RetrievalDecision(members=(expert,), weights=(1.0,), reason=reason, library_version=version)


KeyArray = IntArray


class VectorSpace(Record):
    """The encoder of vectors. Vectors of two encoders differ in meaning even if their dimensions are equal."""

    fingerprint: str = Field(min_length=1, description="of the base encoder")
    dim: int = Field(gt=0)


class Hits(NamedTuple):
    """The k nearest vectors of one query, best first: keys (k,) and inner products (k,)."""

    keys: KeyArray
    scores: FloatArray


class VectorIndex(Protocol):
    """Vectors of one space by key, stored once `add` or `remove` returns. Methods block and are thread-safe."""

    def __len__(self) -> int: ...

    def add(self, keys: KeyArray, vectors: FloatArray) -> None:
        """Add vectors (n, d); an existing key gets the new vector.

        Raises:
            VectorSpaceError: they have another dimension than this index.
            StoreError: they could not be stored; none was added.
        """
        ...

    def remove(self, keys: KeyArray) -> int:
        """Remove keys and return how many existed; may raise StoreError."""
        ...

    def search(self, query: FloatArray, limit: int, among: KeyArray | None = None, enough: int | None = None) -> Hits:
        """Return the `limit` keys with the largest inner product with `query` (d,).

        Args:
            among: only these keys, faster if sorted; None for all.
            enough: number of hits that suffices if more would take longer; None for `limit`.

        Raises:
            VectorSpaceError: the query has another dimension than this index.
        """
        ...


class VectorIndexes(Protocol):
    """Indexes by name, all of one space."""

    def open(self, name: str) -> VectorIndex:
        """Return the index of that name, created empty if there is none.

        Raises:
            VectorSpaceError: it has another encoder's vectors.
            StoreError: it cannot be read.
        """
        ...

    def drop(self, name: str) -> None:
        """Delete the index; harmless if there is none. May raise StoreError."""
        ...

    def close(self) -> None: ...


def require_same_space(name: str, held: VectorSpace, wanted: VectorSpace) -> None:
    """Raise VectorSpaceError if an index has vectors of another encoder than the current one."""
    if held == wanted:
        return
    raise VectorSpaceError(
        f"index {name} holds vectors of base encoder {held.fingerprint[:12]} ({held.dim} dimensions), the encoder in "
        f"use is {wanted.fingerprint[:12]} ({wanted.dim} dimensions): bring back that encoder, or delete the index "
        "and add its documents again"
    )


def require_vectors(space: VectorSpace, vectors: FloatArray) -> None:
    """Raise VectorSpaceError if rows of (n, d) have another dimension than the space, or NaN or infinity."""
    if vectors.ndim != 2 or vectors.shape[1] != space.dim:
        raise VectorSpaceError(f"vectors have shape {vectors.shape}; this index takes (n, {space.dim})")
    if not np.isfinite(vectors).all():
        raise VectorSpaceError("vectors hold NaN or infinity; allowed: finite numbers")


def best(keys: KeyArray, scores: FloatArray, limit: int) -> Hits:
    """Return the `limit` best candidates; equal scores by ascending key, so that results are reproducible."""
    order = np.lexsort((keys, -scores))[:limit]
    return Hits(keys[order], scores[order])


def is_among(keys: KeyArray, among: KeyArray) -> BoolArray:
    """Return a mask of the keys (n,) in `among`. Dense keys take a table, ten times as fast as `np.isin`."""
    if not len(keys):
        return np.zeros(0, dtype=bool)
    lowest, highest = int(keys.min()), int(keys.max())
    if highest - lowest > SPARSE * len(keys):
        ordered = np.sort(among, kind="stable")  # in linear time where they ascend already
        found: BoolArray = np.searchsorted(ordered, keys) < np.searchsorted(ordered, keys, side="right")
        return found
    table = np.zeros(highest - lowest + 1, dtype=bool)
    table[among[(among >= lowest) & (among <= highest)] - lowest] = True
    return np.asarray(table[keys - lowest])
