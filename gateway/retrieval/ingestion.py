"""Reading files into stores, one after the other, behind the requests.

What is to be read stands in the database, so a gateway that dies goes on at its next start, or another one does. A
file is `completed` only when its chunks are in SQL and its vectors in every index; a search shows no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from gateway.retrieval.catalog import Catalog
from gateway.retrieval.chunk_table import ChunkTable
from gateway.retrieval.chunking import StaticChunking, chunk
from gateway.retrieval.reading import UnreadableFileError, read_text
from gateway.retrieval.records import FileStatus, StoreFile
from gateway.retrieval.vectors import DocumentVectors
from gateway.tasks import stop_task
from router.errors import DamagedIndexError, RouterError, StoreError
from router.retrieval.index.space import KeyArray

CLAIM_S = 600.0
LOOK_EVERY_S = 15.0  # for files that another gateway left, and stores past their time
RETRY_S = 1.0
WAIT_S = 300.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class AbandonedError(Exception):
    """The file was taken out of the store while it was read, or the gateway stops."""


class Ingestion:
    """Start it on the event loop; the work is done on `thread`."""

    def __init__(
        self,
        catalog: Catalog,
        chunks: ChunkTable,
        vectors: DocumentVectors,
        thread: ThreadPoolExecutor,
        *,
        is_alone: bool,
    ) -> None:
        self._catalog, self._chunks, self._vectors, self._thread = catalog, chunks, vectors, thread
        self._is_alone = is_alone
        self._has_work = asyncio.Event()
        self._has_finished = asyncio.Condition()
        self._must_stop = False
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Goes on with what an earlier life left. Raises StoreError."""
        if self._is_alone:
            await self._in_thread(self._catalog.release_claims)
        self._worker = asyncio.create_task(self._run(), name="retrieval-ingestion")

    async def aclose(self) -> None:
        """Ends after the batch in hand; the file is read again at the next start."""
        self._must_stop = True
        await stop_task(self._worker)
        if self._is_alone:
            with contextlib.suppress(StoreError):
                await self._in_thread(self._catalog.release_claims)

    def wake(self) -> None:
        """There is something to read."""
        self._has_work.set()

    async def until_read(self, store_id: str, file_ids: set[str]) -> None:
        """Returns once none of these files waits, or after `WAIT_S`. Raises StoreError."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            async with self._has_finished:
                left = await asyncio.to_thread(self._catalog.waiting)
                if not file_ids & {file_id for store, file_id in left if store == store_id}:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S):
                        await self._has_finished.wait()

    async def _run(self) -> None:
        await self._in_thread(self._backfill)
        while True:
            self._has_work.clear()
            try:
                await self._in_thread(self._repair)
                await self._read_waiting()
                await self._in_thread(self._tidy)
            except StoreError as error:
                logger.warning("retrieval: files wait, because %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._has_work.wait()

    async def _read_waiting(self) -> None:
        for store_id, file_id in await self._in_thread(self._catalog.waiting):
            await self._in_thread(self._read, store_id, file_id)
            async with self._has_finished:
                self._has_finished.notify_all()

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *arguments))

    def _repair(self) -> None:
        """Has the files of stores with a damaged index read again.

        First in the database, so that after a crash in between the rest is done again. A store of another encoder stays
        as it is: it cannot be searched before that one is back.
        """
        for store_id in sorted(self._vectors.damaged):
            store = self._catalog.store(store_id, None)
            if store is None or store.space == self._vectors.base_space:
                self._catalog.read_again(store_id)
                self._vectors.drop(store_id)

    def _backfill(self) -> None:
        """Encodes what an expert with a document space of its own has not seen, because it came later."""

        def go_on() -> None:
            if self._must_stop:
                raise AbandonedError

        try:
            for store_id in self._catalog.all_stores() if self._vectors.has_other_spaces else ():
                with contextlib.suppress(DamagedIndexError):  # `_repair` encodes for every expert
                    self._vectors.backfill(store_id, go_on)
        except AbandonedError:
            return
        except RouterError as error:
            logger.warning("retrieval: some experts cannot search every store, because %s", error)

    def _tidy(self) -> None:
        """Deletes stores past their time."""
        for store_id in self._catalog.expired_stores():
            self._catalog.delete_store(store_id)
            self._vectors.drop(store_id)

    def _read(self, store_id: str, file_id: str) -> None:
        """Reads one file, if nobody else does. Raises StoreError."""
        file = self._catalog.store_file(store_id, file_id)
        if file is None or not self._catalog.claim(store_id, file_id, CLAIM_S):
            return
        keys: KeyArray = np.zeros(0, dtype=np.int64)
        try:
            texts = chunk(self._text(file), StaticChunking.model_validate_json(file.strategy))
            keys = self._add(file, texts)
            done = completed(texts, self._vectors.bytes_of(len(texts)))
        except AbandonedError:
            return
        except UnreadableFileError as error:
            done = failure(error.code, str(error))
        except StoreError as error:
            self._catalog.change_store_file(store_id, file_id, {"claimed_until": None})
            if isinstance(error, DamagedIndexError):
                return  # it waits for `_repair`, and those of other stores need not
            raise
        except RouterError as error:
            done = failure("server_error", str(error))
        except Exception as error:  # noqa: BLE001 - a parser's fault on one file must not end the reading of others
            logger.error("retrieval: reading %s met an unforeseen %s", file_id, type(error).__name__)
            done = failure("server_error", f"the file could not be read ({type(error).__name__})")
        if not self._catalog.change_store_file(store_id, file_id, done):
            self._forget(store_id, keys)

    def _text(self, file: StoreFile) -> str:
        content = self._catalog.content(file.file_id)
        if content is None:
            raise UnreadableFileError("the file was deleted", "invalid_file")
        return read_text(file.filename, content)

    def _add(self, file: StoreFile, texts: list[str]) -> KeyArray:
        """Chunks to SQL, vectors to the indexes; the keys of both."""
        new, old = self._chunks.replace(file.store_id, file.file_id, texts)
        self._vectors.remove(file.store_id, old)

        def go_on() -> None:
            if self._must_stop:
                raise AbandonedError
            still_there = {"claimed_until": self._catalog.now() + CLAIM_S}
            if not self._catalog.change_store_file(file.store_id, file.file_id, still_there):
                self._forget(file.store_id, new)
                raise AbandonedError

        self._vectors.add(file.store_id, new, texts, go_on)
        return new

    def _forget(self, store_id: str, keys: KeyArray) -> None:
        """What was added of a file that is not in the store any more, or whose store is gone."""
        if self._catalog.store(store_id, None) is None:
            self._vectors.drop(store_id)
        else:
            self._vectors.remove(store_id, keys)


def completed(texts: list[str], vector_bytes: int) -> dict[str, object]:
    size = vector_bytes + sum(len(text.encode("utf-8", "replace")) for text in texts)
    return {"status": FileStatus.COMPLETED.value, "usage_bytes": size, "claimed_until": None}


def failure(code: str, message: str) -> dict[str, object]:
    return {
        "status": FileStatus.FAILED.value,
        "error_code": code,
        "error_message": message,
        "claimed_until": None,
    }
