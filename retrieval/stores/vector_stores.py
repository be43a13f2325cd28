"""Vector stores of clients: what the endpoints do, off the event loop, for one owner at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from retrieval.stores.catalog import Catalog
from retrieval.stores.chunk_table import ChunkTable
from retrieval.stores.chunking import StaticChunking
from retrieval.stores.document_vectors import DocumentVectors
from retrieval.stores.files import new_id, not_found
from retrieval.stores.ingestion import Ingestion
from retrieval.stores.store_records import Addition, FileStatus, StoreFile, VectorStore
from retrieval.stores.store_search import StoreSearch


class VectorStores:
    """The stores of one gateway. Everything raises StoreError when the database or an index is away."""

    def __init__(
        self,
        catalog: Catalog,
        chunks: ChunkTable,
        vectors: DocumentVectors,
        searcher: StoreSearch,
        ingestion: Ingestion,
        default_chunking: StaticChunking,
    ) -> None:
        self.files, self.catalog, self.chunks, self.ingestion = catalog.files, catalog, chunks, ingestion
        self.default_chunking = default_chunking
        self._vectors, self.searcher = vectors, searcher

    async def delete_file(self, owner: str, file_id: str) -> None:
        """Deletes a file, out of every store it is in. Raises RequestError 404."""
        await self.files.file(owner, file_id)
        for store_id in await asyncio.to_thread(self.catalog.stores_of, file_id):
            await asyncio.to_thread(self._detach, store_id, file_id)
        await self.files.delete(owner, file_id)

    async def create(
        self, owner: str, *, name: str, description: str | None, metadata: Mapping[str, str], expires_days: int | None
    ) -> VectorStore:
        """An empty store."""
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

    async def store(self, owner: str | None, store_id: str) -> VectorStore:
        """Raises RequestError 404, also for a store of another owner; `owner` None asks for anybody's."""
        store = await asyncio.to_thread(self.catalog.store, store_id, owner)
        if store is None:
            raise not_found("vector store", store_id, "vector_store_id")
        return store

    async def delete(self, owner: str, store_id: str) -> None:
        """Deletes a store, its chunks and its vectors. Raises RequestError 404."""
        await self.store(owner, store_id)
        await asyncio.to_thread(self.catalog.delete_store, store_id)
        await asyncio.to_thread(self._vectors.drop, store_id)

    async def attach(self, owner: str, store_id: str, files: Sequence[Addition], batch_id: str | None = None) -> None:
        """Puts files into a store, to be read soon; all or none of them.

        Raises:
            RequestError: 404 for a file that the owner does not have, 400 when the store would hold too many.
        """
        for file in files:
            await self.files.file(owner, file.file_id)
        default = self.default_chunking
        if not await asyncio.to_thread(self.catalog.attach, store_id, files, default, batch_id):
            raise not_found("vector store", store_id, "vector_store_id")
        self.ingestion.wake()

    async def store_file(self, store_id: str, file_id: str) -> StoreFile:
        """Raises RequestError 404. Check the store's owner before."""
        file = await asyncio.to_thread(self.catalog.store_file, store_id, file_id)
        if file is None:
            raise not_found(f"file in {store_id}", file_id, "file_id")
        return file

    async def detach(self, store_id: str, file_id: str) -> None:
        """Takes a file out of a store. Raises RequestError 404."""
        await self.store_file(store_id, file_id)
        await asyncio.to_thread(self._detach, store_id, file_id)

    def close(self) -> None:
        self._vectors.close()

    def _detach(self, store_id: str, file_id: str) -> None:
        keys = self.chunks.keys(store_id, [file_id])
        self.catalog.detach(store_id, file_id)
        self._vectors.remove(store_id, keys)


def file_counts(counts: Mapping[FileStatus, int]) -> dict[str, int]:
    """OpenAI's `file_counts`."""
    return {**{status.value: counts.get(status, 0) for status in FileStatus}, "total": sum(counts.values())}
