"""The search of one vector store: choose experts per query, filter, search, fuse, and look the chunks up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from coe.base.errors import RequestError
from coe.retrieval.routing.fusion import POOL, fuse
from coe.retrieval.routing.query_routing import QueryRouting, RoutedQueries
from coe.retrieval.stores.catalog import Catalog
from coe.retrieval.stores.chunk_table import ChunkTable
from coe.retrieval.stores.document_vectors import DocumentVectors
from coe.retrieval.stores.filters import Filter, matches
from coe.retrieval.stores.store_records import Chunk, VectorStore
from coe.retrieval.types import (
    BASE,
    DenseExpert,
    KeyArray,
    RetrievalDecision,
    RetrievalReason,
    VectorSpace,
    require_same_space,
    single,
)
from coe.router.section import AUTO
from coe.router.types import FloatArray

FILTERS = 64
"""Number of filters whose chunks are cached, each up to 800 kB for a store with 100,000 chunks."""

SPARE = 20
"""Chunks requested beyond the limit, to replace those of files still being read. A filter excludes these already."""


@dataclass(frozen=True)
class SearchRequest:
    """A search. `score_threshold` None keeps all hits; `may_take_long` is for a search that delays no other request."""

    queries: tuple[str, ...]
    limit: int
    model: str = AUTO
    condition: Filter | None = None
    score_threshold: float | None = None
    may_take_long: bool = False


@dataclass(frozen=True)
class Found:
    """A chunk with its score: a cosine, or a weighted sum in [0, 1] if rankings were fused."""

    chunk: Chunk
    score: float


@dataclass(frozen=True)
class SearchAnswer:
    """The chunks of all queries, best first, and the decision on each query."""

    routed: RoutedQueries
    found: tuple[Found, ...]


class StoreSearch:
    """The search of vector stores. Methods block and are safe in any number of threads."""

    def __init__(self, routing: QueryRouting, catalog: Catalog, chunks: ChunkTable, vectors: DocumentVectors) -> None:
        self._routing, self._catalog, self._chunks, self._vectors = routing, catalog, chunks, vectors
        self._left: dict[tuple[str, int, str], KeyArray] = {}

    def search(self, store: VectorStore, request: SearchRequest) -> SearchAnswer:
        """Return the best chunks of a store that the caller may read.

        Raises:
            RequestError, VectorSpaceError, StoreError: it cannot be searched.
            StaleWordsError: its words must be indexed first, which the request does not allow.
        """
        if store.expires_at is not None and store.expires_at < time.time():
            raise RequestError(f"vector store {store.store_id} has expired", status=404, code="not_found")
        answer = self._answer(store, request)
        if store.expires_days is not None:
            self._catalog.change_store(store.store_id, {"last_active_at": time.time()})
        return answer

    def _answer(self, store: VectorStore, request: SearchRequest) -> SearchAnswer:
        base = self._routing.base
        held = VectorSpace(fingerprint=store.space, dim=base.dim)
        require_same_space(store.store_id, held, VectorSpace(fingerprint=base.fingerprint, dim=base.dim))
        routed = self._routing.route(request.queries, request.model)
        routed = replace(routed, decisions=tuple(self._possible(store.store_id, each) for each in routed.decisions))
        among = None if request.condition is None else self._left_by(store, request.condition)
        best: dict[int, float] = {}
        for keys, scores in self._rankings(store.store_id, routed, request, among):
            for key, score in zip(keys.tolist(), scores.tolist(), strict=True):
                best[key] = max(score, best.get(key, -np.inf))
        return SearchAnswer(routed, self._shown(store.store_id, best, request))

    def _possible(self, store_id: str, decision: RetrievalDecision) -> RetrievalDecision:
        """Return the decision, or base if a member has not encoded this store's documents yet.

        Raises:
            RequestError: 503, the client named the member, or base has not encoded them either.
        """
        lacking = [name for name in decision.members if not self._vectors.can_search(store_id, name)]
        if not lacking:
            return decision
        if decision.reason is RetrievalReason.EXPLICIT or not self._vectors.can_search(store_id, BASE):
            raise RequestError(
                f"retrieval expert '{lacking[0]}' is still encoding the documents of {store_id}",
                status=503,
                code="index_incomplete",
                retry_after_s=5.0,
            )
        return single(BASE, RetrievalReason.ONLY, decision.library_version)

    def _left_by(self, store: VectorStore, condition: Filter) -> KeyArray:
        """Return the keys of chunks that pass a filter, cached for recent filters because reading many is slow."""
        asked = (store.store_id, store.version, condition.model_dump_json())
        if (keys := self._left.get(asked)) is None:
            held = self._catalog.attributes(store.store_id)
            names = [name for name, values in held.items() if matches(condition, values)]
            keys = self._left[asked] = self._chunks.keys(store.store_id, names)
            if len(self._left) > FILTERS:
                self._left.clear()
        return keys

    def _rankings(
        self, store_id: str, routed: RoutedQueries, request: SearchRequest, among: KeyArray | None
    ) -> list[tuple[KeyArray, FloatArray]]:
        """Return the fused ranking of each query; all queries of an expert are encoded at once."""
        wanted = [(row, name) for row, decision in enumerate(routed.decisions) for name in decision.members]
        dense = [(row, name) for row, name in wanted if isinstance(self._routing.experts[name], DenseExpert)]
        rows = [row for row, _ in dense]
        asked = RoutedQueries(
            tuple(routed.texts[row] for row in rows), (), None if routed.base is None else routed.base[rows]
        )
        limit = request.limit + (SPARE if among is None else 0)
        search = partial(self._vectors.search, enough=limit, may_take_long=request.may_take_long)
        vector_of = dict(zip(dense, self._routing.vectors(asked, [name for _, name in dense]), strict=True))
        rankings = []
        for row, decision in enumerate(routed.decisions):
            count = limit if len(decision.members) == 1 else max(limit, POOL)
            members = [
                search(store_id, name, routed.texts[row], vector_of.get((row, name)), count, among)
                for name in decision.members
            ]
            evidence = partial(self._vectors.evidence, store_id, decision.members[-1], routed.texts[row])
            rankings.append(fuse(members, decision, limit, evidence))
        return rankings

    def _shown(self, store_id: str, best: dict[int, float], request: SearchRequest) -> tuple[Found, ...]:
        lowest = -np.inf if request.score_threshold is None else request.score_threshold
        order: Sequence[int] = sorted((key for key in best if best[key] >= lowest), key=lambda key: (-best[key], key))
        chunks = self._chunks.shown(store_id, order[: request.limit + SPARE])
        kept = [key for key in order if key in chunks][: request.limit]
        return tuple(Found(chunks[key], best[key]) for key in kept)
