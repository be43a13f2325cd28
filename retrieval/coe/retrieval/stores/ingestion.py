"""The background reading of files into stores: one owner's files in sequence, owners in parallel.

Files to read are in the database, so another gateway, or the next start, continues after a gateway dies. Attempts are
counted there before they begin, so that a file that ended several gateways fails. A file is `completed` only when its
chunks are in SQL and its vectors in every index; a search shows no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from coe.base.errors import RouterError, StoreError
from coe.fleet.processes.tasks import happens, stop_task
from coe.retrieval.fair_threads import PIECE_CHARS, PIECE_TEXTS, FairThreads
from coe.retrieval.stores.catalog import Catalog
from coe.retrieval.stores.chunk_table import ChunkTable
from coe.retrieval.stores.chunking import StaticChunking
from coe.retrieval.stores.cutting import CHARS_PER_TOKEN
from coe.retrieval.stores.document_reader import DocumentReader, ReaderDiedError, ReadingProcess
from coe.retrieval.stores.document_text import UnreadableFileError
from coe.retrieval.stores.document_vectors import DocumentVectors
from coe.retrieval.stores.store_records import FileStatus, StoreFile
from coe.retrieval.types import KeyArray

CLAIM_S = 15.0  # extended while a file is read, so that those of a gateway that died are soon free
LOOK_EVERY_S = 15.0  # for files that another gateway left, and stores past their time
RETRY_S = 1.0
WAIT_S = 300.0
MAX_ATTEMPTS = 3


NO_KEYS: KeyArray = np.zeros(0, dtype=np.int64)

logger = logging.getLogger(__name__)


class AbandonedError(Exception):
    """The file was removed from the store during reading."""


class Ingestion:
    """The tasks that read files; start and close them on the event loop. `threads` compute vectors."""

    def __init__(
        self,
        catalog: Catalog,
        chunks: ChunkTable,
        vectors: DocumentVectors,
        reader: DocumentReader,
        threads: FairThreads,
    ) -> None:
        self._catalog, self._chunks, self._vectors = catalog, chunks, vectors
        self._reader, self._threads = reader, threads
        self._has_work = asyncio.Event()
        self._waits = False  # for a database that is away
        self._wakes = 0
        self._has_finished = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._owners: dict[str, asyncio.Task[None]] = {}
        self._in_hand: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Continue with the files that an earlier process left. Call it on the event loop."""
        self._tasks = [
            asyncio.create_task(self._run(), name="retrieval-ingestion"),
            asyncio.create_task(self._backfill(), name="retrieval-backfill"),
            asyncio.create_task(self._keep_claims(), name="retrieval-claims"),
        ]

    async def aclose(self) -> None:
        """Stop reading; the next start reads unfinished files again."""
        for task in (*self._tasks, *self._owners.values()):
            await stop_task(task)
        for store_id, file_id in self._in_hand:
            with contextlib.suppress(StoreError):
                await asyncio.to_thread(self._catalog.give_back, store_id, file_id)

    def wake(self) -> None:
        """Report that there is a file to read."""
        self._wakes += 1
        self._has_work.set()

    async def until_read(self, store_id: str, file_ids: set[str]) -> None:
        """Wait until none of these files waits, at most `WAIT_S`; may raise StoreError."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            async with self._has_finished:
                if not file_ids & await asyncio.to_thread(self._catalog.waiting_of_store, store_id):
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S):
                        await self._has_finished.wait()

    async def _run(self) -> None:
        while True:
            self._has_work.clear()
            try:
                for owner in await asyncio.to_thread(self._catalog.owners_waiting):
                    if owner not in self._owners:
                        self._owners[owner] = asyncio.create_task(self._read_of(owner), name="retrieval-reading")
                await asyncio.to_thread(self._tidy)
                self._waits = False
            except StoreError as error:
                self._say_why(error)
                await asyncio.sleep(RETRY_S)
                continue
            await happens(self._has_work, LOOK_EVERY_S)

    async def _read_of(self, owner: str) -> None:
        """Read an owner's files until none is left that can be read now."""
        try:
            is_new = True
            while is_new:
                wakes, has_read = self._wakes, False
                for store_id, file_id in await asyncio.to_thread(self._catalog.waiting_of_owner, owner):
                    has_read |= await self._read(owner, store_id, file_id)
                    async with self._has_finished:
                        self._has_finished.notify_all()
                is_new = has_read or wakes != self._wakes
        except StoreError as error:
            self._say_why(error)
            await asyncio.sleep(RETRY_S)
            self.wake()
        finally:
            del self._owners[owner]

    def _say_why(self, error: StoreError) -> None:
        """Log once why files wait, until none does."""
        if not self._waits:
            logger.warning("retrieval: files wait, because %s", error)
        self._waits = True

    async def _keep_claims(self) -> None:
        """Extend the claims of this process."""
        while True:
            await asyncio.sleep(CLAIM_S / 3)
            for store_id, file_id in tuple(self._in_hand):
                with contextlib.suppress(StoreError):
                    await asyncio.to_thread(self._catalog.keep_claim, store_id, file_id, CLAIM_S)

    async def _backfill(self) -> None:
        """Encode the chunks that spaces lack, because an expert is new or an index was lost.

        A store of another base stays unchanged, and cannot be searched until that base is back.
        """
        try:
            for store_id, owner in await asyncio.to_thread(self._catalog.stores_in, self._vectors.base_space):
                if not (behind := await asyncio.to_thread(self._vectors.behind, store_id)):
                    continue
                logger.warning("retrieval: the documents of %s are encoded again, for vectors are missing", store_id)
                for some in parts(await asyncio.to_thread(self._chunks.all_keys, store_id), PIECE_TEXTS):
                    for space in behind:
                        await self._threads.run(owner, self._vectors.add, store_id, space, some)
        except RouterError as error:
            logger.warning("retrieval: some experts cannot search every store, because %s", error)

    def _tidy(self) -> None:
        """Delete expired stores."""
        for store_id in self._catalog.expired_stores():
            self._catalog.delete_store(store_id)
            self._vectors.drop(store_id)

    async def _read(self, owner: str, store_id: str, file_id: str) -> bool:
        """Make one attempt at a file; return False if the file has to wait. May raise StoreError."""
        name, keys = (store_id, file_id), NO_KEYS
        try:
            async with self._reader.place() as process:
                file = await self._claimed(store_id, file_id)
                if file is None:
                    return False
                keys, text_bytes = await self._cut(file, process)
            await self._encode(owner, file, keys)
            done = completed(text_bytes + self._vectors.bytes_of(len(keys)))
        except AbandonedError:
            done = {}
        except UnreadableFileError as error:
            done = failure(error.code, str(error))
        except ReaderDiedError:
            done = {"claimed_until": None}
        except StoreError:
            await asyncio.to_thread(self._catalog.give_back, *name)
            self._in_hand.discard(name)
            raise
        except RouterError as error:
            done = failure("server_error", str(error))
        except Exception as error:  # noqa: BLE001 - a fault on one file must not end the reading of others
            logger.error("retrieval: reading %s met an unforeseen %s", file_id, type(error).__name__)
            done = failure("server_error", f"the file could not be read ({type(error).__name__})")
        if done and not await asyncio.to_thread(self._catalog.change_store_file, *name, done):
            await asyncio.to_thread(self._forget, store_id, keys)
        self._in_hand.discard(name)
        return True

    async def _claimed(self, store_id: str, file_id: str) -> StoreFile | None:
        """Claim a file and count the attempt; return None if the file is not free.

        Raises:
            UnreadableFileError: too many attempts ended with their gateway.
        """
        file = await asyncio.to_thread(self._catalog.store_file, store_id, file_id)
        if file is None or not (attempt := await asyncio.to_thread(self._catalog.claim, store_id, file_id, CLAIM_S)):
            return None
        self._in_hand.add((store_id, file_id))
        if attempt > MAX_ATTEMPTS:
            raise UnreadableFileError(
                f"reading the file was begun {MAX_ATTEMPTS} times, and each time the gateway ended before it; "
                "it is not tried again",
                "server_error",
            )
        return file

    async def _cut(self, file: StoreFile, process: ReadingProcess) -> tuple[KeyArray, int]:
        """Write the file's chunks to SQL; return their keys and the bytes of their texts."""
        strategy = StaticChunking.model_validate_json(file.strategy)
        chunks = await process.read(file.filename, partial(self._catalog.files.copy, file.file_id), strategy)
        new, old = await asyncio.to_thread(self._chunks.replace, file.store_id, file.file_id, chunks)
        await asyncio.to_thread(self._vectors.remove, file.store_id, old)
        return new, chunks.text_bytes(len(new))

    async def _encode(self, owner: str, file: StoreFile, keys: KeyArray) -> None:
        """Write the vectors of chunks to the indexes of every space; may raise AbandonedError."""
        size = StaticChunking.model_validate_json(file.strategy).max_chunk_size_tokens * CHARS_PER_TOKEN
        for some in parts(keys, max(1, min(PIECE_TEXTS, PIECE_CHARS // size))):
            for space in self._vectors.spaces:
                await self._threads.run(owner, self._vectors.add, file.store_id, space, some)
            if not await asyncio.to_thread(self._catalog.keep_claim, file.store_id, file.file_id, CLAIM_S):
                await asyncio.to_thread(self._forget, file.store_id, keys)
                raise AbandonedError

    def _forget(self, store_id: str, keys: KeyArray) -> None:
        """Remove what was added of a file that has left the store, or whose store is gone."""
        if self._catalog.store(store_id, None) is None:
            self._vectors.drop(store_id)
        else:
            self._vectors.remove(store_id, keys)


def parts(keys: KeyArray, count: int) -> Iterator[KeyArray]:
    return (keys[start : start + count] for start in range(0, len(keys), count))


def completed(usage_bytes: int) -> dict[str, object]:
    return {"status": FileStatus.COMPLETED.value, "usage_bytes": usage_bytes, "claimed_until": None}


def failure(code: str, message: str) -> dict[str, object]:
    return {"status": FileStatus.FAILED.value, "error_code": code, "error_message": message, "claimed_until": None}
