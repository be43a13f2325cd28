"""The words of retrieval: experts, rankings and decisions. n queries, d dimensions, m experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from pydantic import Field

from coe.router import retrieval_config
from coe.router.protocols import Encoder
from coe.router.types import FloatArray, IntArray, Record

BASE = retrieval_config.BASE
"""The expert that is always there: the encoder of the documents, without an adapter."""


EVIDENCE = ("coverage", "phrases", "length")
"""Features of a document and a query from a word index, besides its score, each in [0, 1]."""


class NamedExpert(Protocol):
    """The identity of an expert."""

    @property
    def name(self) -> str: ...

    @property
    def space(self) -> str:
        """Fingerprint of the documents as it reads them: an index of another space must refuse it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of what it computes on queries."""
        ...


@runtime_checkable
class DenseExpert(NamedExpert, Protocol):
    """Queries to vectors in a document space."""

    @property
    def dim(self) -> int: ...

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) float32 unit rows; an empty text gives a zero row. Raises BackendError."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) as above, by the frozen document side."""
        ...


@runtime_checkable
class LexicalIndex(Protocol):
    """Documents that are found by their words."""

    def search(self, texts: Sequence[str], count: int) -> list[tuple[IntArray, FloatArray]]:
        """Per query the rows of at most `count` documents that share a word with it, best first, and their scores."""
        ...

    def evidence(self, text: str, rows: IntArray) -> FloatArray:
        """(k, `EVIDENCE`) of documents at rows (k,) for a query: the share of its words that occur in the document,
        each counting by its rarity; the share of its neighbouring words that are neighbours there; the length."""
        ...


@runtime_checkable
class LexicalExpert(NamedExpert, Protocol):
    """An expert that searches texts directly: it has no vectors."""

    def index(self, texts: Sequence[str]) -> LexicalIndex:
        """An index in memory of the documents in order; row i is text i."""
        ...


RetrievalExpert = DenseExpert | LexicalExpert


ExpertOf = Callable[[str, Encoder], RetrievalExpert]
"""The result of a kind's `build`: makes the expert of that name over a base. Raises ArtifactError when it was made for
another base."""


@dataclass(frozen=True)
class BaseExpert:
    """The section's encoder on both sides."""

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

    A plain and a learned one also weigh `EVIDENCE`, which the last member gives, an expert over words; the weights of a
    learned one come from the labelled queries of one data set.
    """

    members: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] = Field(min_length=1, description="of each member")
    evidence: tuple[float, ...] = Field(default=(), description="weights of EVIDENCE; empty where rankings decide")
    learned_on: str | None = Field(default=None, description="data set that taught the weights")

    @property
    def name(self) -> str:
        """`medical`; `medical+bm25` fused plainly; `medical+bm25:0.7` by scores, with the first member's weight;
        `medical+bm25:faq` as learned on `faq`."""
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
    """The arm that serves one query. Two members both search, and `routing.fusion` joins their rankings."""

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

    @property
    def is_fused(self) -> bool:
        return len(self.members) > 1


def single(expert: str, reason: RetrievalReason, version: str = "none") -> RetrievalDecision:
    """The decision for one expert without a comparison."""
    return RetrievalDecision(members=(expert,), weights=(1.0,), reason=reason, library_version=version)
