"""The seams: what an encoder, a classifier, a scorer and a backend must do. Plugins implement; nothing inherits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from router.quality import QualityMatrix
from router.types import CategoryProbs, ExpertScores, FloatArray, QueryBatch

ArrayState = Mapping[str, NDArray[np.generic]]
"""Learned arrays by name; what safetensors stores."""


@runtime_checkable
class Encoder(Protocol):
    """Texts to vectors."""

    @property
    def dim(self) -> int:
        """Dimensions d of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the vector space: hash of weights and every option that changes a vector."""
        ...

    @property
    def is_inline(self) -> bool:
        """Returns True when one short text takes well under a millisecond, so it may run on the event loop."""
        ...

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) float32 with L2-normalised rows; an empty text gives a zero row. A text's vector does not depend on
        its batch (within 1e-5).

        Raises:
            BackendError: a remote encoder did not answer.
        """
        ...


@runtime_checkable
class CategoryClassifier(Protocol):
    """Stage 1. Built unfitted from Options; `with_state` gives the fitted one."""

    @property
    def categories_(self) -> tuple[str, ...]:
        """The k categories in column order; empty when unfitted."""
        ...

    def with_state(self, categories: Sequence[str], state: ArrayState) -> Self:
        """The same classifier with learned arrays.

        Raises:
            ArtifactError: arrays are missing or of the wrong shape.
        """
        ...

    def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
        """Probabilities (n, k) before temperature calibration. Raises ArtifactError when unfitted."""
        ...


@runtime_checkable
class ExpertScorer(Protocol):
    """Stage 2: predicted quality of every expert on every query. Built empty; `with_evidence` and, for a kind that
    learns arrays of its own, `with_state` fill it."""

    @property
    def decides_by_query(self) -> bool:
        """Returns whether the expert of best predicted quality serves, rather than that of the category's map."""
        ...

    def with_evidence(self, experts: Sequence[str], evidence: QualityMatrix) -> Self:
        """The same scorer over m experts, the columns of `evidence`."""
        ...

    def with_state(self, state: ArrayState, columns: Sequence[int]) -> Self:
        """The same scorer with its learned arrays, for the experts at `columns` of those it was fitted on.

        Raises:
            ArtifactError: arrays are missing or of the wrong shape.
        """
        ...

    def score(self, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> ExpertScores:
        """Scores (n, m). `rows` (n,): the category decided for each query, as a row of the evidence. A linear kind may
        leave [0, 1] by extrapolation.

        Raises:
            ArtifactError: the arrays are missing.
        """
        ...


@dataclass(frozen=True, slots=True)
class BackendRequest:
    """A chat request on its way to one expert. `body` is the client's JSON object, decoded once; a backend replaces
    `model` (and what selects an adapter) and changes nothing else. `path` is relative to the API root.

    `headers` go with it: those of the client that the expert's wire asks for, and the context of a trace.
    `cache_salt` differs between callers: an engine that shares cached prompts shares them among requests of one salt.
    Requests of one `conversation` go to one engine, where an expert has several; those of a batch wait behind others.
    """

    body: Mapping[str, object]
    path: str = "chat/completions"
    is_stream: bool = False
    request_id: str = ""
    timeout_s: float = 600.0
    cache_salt: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    conversation: str = ""
    is_batch: bool = False


class ChunkStream(Protocol):
    """The bytes of an answer as they arrive. `aclose` before the end cancels the generation; it never raises."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes:
        """The next piece. Raises BackendError when the answer was cut."""
        ...

    async def aclose(self) -> None: ...


@dataclass(slots=True)
class BackendResponse:
    """An expert's answer. `chunks` yields the body exactly as it came.

    `headers` holds only what a client may see (content-type, retry-after). `queue_ms` is how long the request waited
    for a place, None where nobody counts places."""

    status: int
    chunks: ChunkStream
    headers: dict[str, str] = field(default_factory=dict)
    queue_ms: float | None = None


@runtime_checkable
class ChatBackend(Protocol):
    """Sends requests to one expert."""

    async def send(self, request: BackendRequest) -> BackendResponse:
        """Returns once the answer's head is there. HTTP errors of the expert come back as a response with their status.

        Raises:
            BackendError: no connection, no head in time, or a broken head.
        """
        ...

    async def is_alive(self) -> bool:
        """A cheap probe; False instead of raising."""
        ...

    async def aclose(self) -> None: ...
