"""Retrieval of one gateway process, built from experts.yaml."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from coe.base.errors import ConfigError, RequestError
from coe.decision_log.database import Database
from coe.retrieval.build_experts import build_experts, pilots_folder, require_stores
from coe.retrieval.fair_threads import FairThreads
from coe.retrieval.index.local import LocalIndexes
from coe.retrieval.index.pgvector import PgvectorIndexes
from coe.retrieval.reranker import Reranker
from coe.retrieval.routing.live_pilots import LivePilots, make_choices
from coe.retrieval.routing.query_routing import QueryRouting
from coe.retrieval.stores.catalog import Catalog
from coe.retrieval.stores.chunk_table import ChunkTable
from coe.retrieval.stores.chunking import StaticChunking
from coe.retrieval.stores.document_reader import DocumentReader, ReadingLimits
from coe.retrieval.stores.document_vectors import DocumentVectors, StaleWordsError
from coe.retrieval.stores.files import Files, new_id, not_found
from coe.retrieval.stores.ingestion import Ingestion
from coe.retrieval.stores.store_records import Addition, StoreFile, VectorStore
from coe.retrieval.stores.store_search import SearchAnswer, SearchRequest, StoreSearch
from coe.retrieval.types import VectorIndexes, VectorSpace
from coe.router.config.retrieval import RetrievalConfig

THREADS = 2  # of each kind: numpy and onnxruntime let go of the interpreter, so two requests make use of two cores
READING = ReadingLimits(cpu_s=60, wall_s=180, memory_bytes=512 << 20)  # a machine that others use takes longer
AUTO_CHUNKING = StaticChunking(max_chunk_size_tokens=200, chunk_overlap_tokens=40)
INDEX_BYTES = 1 << 30  # of vectors that a process holds of each document space

T = TypeVar("T")


class RetrievalService:
    """Experts, the choice among them and, with a database, vector stores. Start and close it on the event loop."""

    def __init__(
        self,
        config: RetrievalConfig,
        routing: QueryRouting,
        pilots: LivePilots | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        self.config, self.routing, self.pilots, self.reranker = config, routing, pilots, reranker
        self._stores: VectorStores | None = None
        # Apart, so that what takes one piece waits for its like only, whatever is embedded, ranked or read meanwhile.
        self._searches = FairThreads(THREADS, "coe-search")
        self._pieces = FairThreads(THREADS, "coe-pieces")
        self._indexing = asyncio.Semaphore(1)

    @property
    def stores(self) -> VectorStores:
        """The vector stores; RequestError 503 if this gateway has none."""
        if self._stores is None:
            why = "this gateway has no database, so it keeps no files and vector stores"
            raise RequestError(why, status=503, code="stores_unavailable", retry_after_s=5.0)
        return self._stores

    def open_stores(self, files: Files, secrets: Mapping[str, str], database_url: str) -> None:
        """Open files, stores and indexes.

        Raises:
            StoreError, ConfigError, VectorSpaceError, MissingExtraError: they cannot be opened.
        """
        catalog, chunks = Catalog(files), ChunkTable(files.database)
        opener = index_opener(self.config, files.database, secrets, database_url)
        vectors = DocumentVectors(self.routing.experts, chunks, opener)
        searcher = StoreSearch(self.routing, catalog, chunks, vectors)
        reader = DocumentReader(READING)
        ingestion = Ingestion(catalog, chunks, vectors, reader, self._pieces)
        self._stores = VectorStores(catalog, chunks, vectors, searcher, ingestion)

    async def start(self) -> None:
        """Follow the pilot library, and resume reading files of an earlier process; may raise StoreError."""
        if self.pilots is not None:
            await self.pilots.start()
        if self._stores is not None:
            self._stores.ingestion.start()

    async def search(self, key: str, store: VectorStore, request: SearchRequest) -> SearchAnswer:
        """Search a store. Keys take turns; a search that first has to index many words waits behind others.

        Raises:
            RequestError, VectorSpaceError, StoreError: see `StoreSearch.search`.
        """
        try:
            return await self._searches.run(key, self.stores.searcher.search, store, request)
        except StaleWordsError:
            async with self._indexing:
                return await self.run(key, self.stores.searcher.search, store, replace(request, may_take_long=True))

    async def run(self, key: str, call: Callable[..., T], *arguments: object, **options: object) -> T:
        """Run a piece of a request's work off the event loop. Keys take turns."""
        return await self._pieces.run(key, call, *arguments, **options)

    async def run_soon(self, key: str, call: Callable[..., T], *arguments: object, **options: object) -> T:
        """Run the only piece of a request, with the searches and not behind bulk embedding."""
        return await self._searches.run(key, call, *arguments, **options)

    async def aclose(self) -> None:
        if self.pilots is not None:
            await self.pilots.aclose()
        if self._stores is not None:
            await self._stores.ingestion.aclose()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._searches.close()
        self._pieces.close()
        if self._stores is not None:
            self._stores.close()


def open_retrieval(config: RetrievalConfig, root: Path, secrets: Mapping[str, str]) -> RetrievalService:
    """Build the experts and the choice among them; a missing pilot library is awaited.

    Args:
        root: folder of experts.yaml.

    Raises:
        ConfigError, MissingWeightsError, MissingExtraError, ArtifactError: an expert or the pilot library is unusable.
    """
    experts = build_experts(config, root)
    routing = QueryRouting(experts, make_choices(None, experts))
    reranker = None if config.reranker is None else Reranker(config.reranker, secrets)
    folder = pilots_folder(config, root)
    pilots = None if folder is None else LivePilots(folder, routing)
    if pilots is not None:
        pilots.open()
    return RetrievalService(config, routing, pilots, reranker)


def retrieval_of(
    config: RetrievalConfig, root: Path, files: Files, database_url: str, secrets: Mapping[str, str]
) -> RetrievalService:
    """Build and open all of retrieval. Blocks.

    Raises:
        ConfigError, MissingWeightsError, MissingExtraError, ArtifactError, VectorSpaceError, StoreError: see
            `open_retrieval` and `RetrievalService.open_stores`.
    """
    require_stores()
    service = open_retrieval(config, root, secrets)
    service.open_stores(files, secrets, database_url)
    return service


def index_opener(
    settings: RetrievalConfig, database: Database, secrets: Mapping[str, str], database_url: str
) -> Callable[[str, VectorSpace], VectorIndexes]:
    """Return a function that opens the indexes of one document space; may raise ConfigError."""
    variable = settings.pgvector_url_env
    if variable is None:
        return lambda name, space: LocalIndexes(database, name, space, INDEX_BYTES)
    if variable not in secrets and variable != "DATABASE_URL":
        raise ConfigError(f"retrieval.pgvector_url_env: environment variable {variable} is not set")
    url = secrets.get(variable, database_url)
    return lambda name, space: PgvectorIndexes(url, name, space)


class VectorStores:
    """The stores of one gateway, off the event loop. Every method raises StoreError if the database is unavailable."""

    def __init__(
        self,
        catalog: Catalog,
        chunks: ChunkTable,
        vectors: DocumentVectors,
        searcher: StoreSearch,
        ingestion: Ingestion,
    ) -> None:
        self.files, self.catalog, self.chunks, self.ingestion = catalog.files, catalog, chunks, ingestion
        self._vectors, self.searcher = vectors, searcher

    async def delete_file(self, owner: str, file_id: str) -> None:
        """Delete a file, also from every store; raise RequestError 404 if there is none."""
        await self.files.file(owner, file_id)
        for store_id in await asyncio.to_thread(self.catalog.stores_of, file_id):
            await asyncio.to_thread(self._detach, store_id, file_id)
        await self.files.delete(owner, file_id)

    async def create(
        self, owner: str, *, name: str, description: str | None, metadata: Mapping[str, str], expires_days: int | None
    ) -> VectorStore:
        """Create an empty store."""
        now = time.time()
        store = VectorStore(
            store_id=new_id("vs"),
            owner=owner,
            name=name,
            description=description,
            metadata=dict(metadata),
            created_at=now,
            last_active_at=now,
            expires_days=expires_days,
            space=self._vectors.base_space,
        )
        await asyncio.to_thread(self.catalog.put_store, store)
        return store

    async def store(self, owner: str, store_id: str) -> VectorStore:
        """Return a store; raise RequestError 404 if the owner has none of this id."""
        store = await asyncio.to_thread(self.catalog.store, store_id, owner)
        if store is None:
            raise not_found("vector store", store_id, "vector_store_id")
        return store

    async def delete(self, owner: str, store_id: str) -> None:
        """Delete a store, its chunks and its vectors; raise RequestError 404 if there is none."""
        await self.store(owner, store_id)
        await asyncio.to_thread(self.catalog.delete_store, store_id)
        await asyncio.to_thread(self._vectors.drop, store_id)

    async def attach(self, owner: str, store_id: str, files: Sequence[Addition], batch_id: str | None = None) -> None:
        """Add files to a store, all or none, to be read soon.

        Raises:
            RequestError: 404 for a file that the owner does not have, 400 if the store would have too many.
        """
        for file in files:
            await self.files.file(owner, file.file_id)
        if not await asyncio.to_thread(self.catalog.attach, store_id, files, AUTO_CHUNKING, batch_id):
            raise not_found("vector store", store_id, "vector_store_id")
        self.ingestion.wake()

    async def store_file(self, store_id: str, file_id: str) -> StoreFile:
        """Return a file of a store, whose owner the caller has checked; raise RequestError 404 if there is none."""
        file = await asyncio.to_thread(self.catalog.store_file, store_id, file_id)
        if file is None:
            raise not_found(f"file in {store_id}", file_id, "file_id")
        return file

    async def detach(self, store_id: str, file_id: str) -> None:
        """Remove a file from a store; raise RequestError 404 if it is not there."""
        await self.store_file(store_id, file_id)
        await asyncio.to_thread(self._detach, store_id, file_id)

    def close(self) -> None:
        self._vectors.close()

    def _detach(self, store_id: str, file_id: str) -> None:
        keys = self.chunks.keys(store_id, [file_id])
        self.catalog.detach(store_id, file_id)
        self._vectors.remove(store_id, keys)
