"""A reader of documents into chunks, each in a process of its own, so that a hostile file harms only its owner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from coe.retrieval.stores.chunking import StaticChunking
from coe.retrieval.stores.document_text import UnreadableFileError
from coe.retrieval.stores.reading_process import LENGTH_BYTES, MAX_OUTPUT_BYTES, OUT_OF_MEMORY, REFUSED, TOO_MUCH_OUTPUT

PROGRAM = "from coe.retrieval.stores.reading_process import main; main()"
PROCESSES = 2  # so one slow file leaves a place for another owner's


class ReaderDiedError(Exception):
    """Another program killed the process that reads documents; the file may not be the cause."""


@dataclass(frozen=True)
class ReadingLimits:
    """Limits for reading one document: CPU seconds, wall seconds and bytes of address space."""

    cpu_s: int
    wall_s: float
    memory_bytes: int


@dataclass(frozen=True)
class ChunkFile:
    """Chunks on disk, one after the other."""

    file: BinaryIO

    def __iter__(self) -> Iterator[str]:
        self.file.seek(0)
        while length := self.file.read(LENGTH_BYTES):
            yield self.file.read(int.from_bytes(length, "big")).decode()

    def text_bytes(self, count: int) -> int:
        """Return the bytes of all texts, which are `count`."""
        return os.fstat(self.file.fileno()).st_size - count * LENGTH_BYTES


class DocumentReader:
    """A reader of up to `PROCESSES` documents at once; later ones wait in order of arrival."""

    def __init__(self, limits: ReadingLimits) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(PROCESSES)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[ReadingProcess]:
        """Wait for a free place, and yield a process to read one document."""
        async with self._places:
            # Files without a name, so that a gateway that is killed leaves nothing.
            with tempfile.TemporaryFile() as document, tempfile.TemporaryFile() as chunks:
                yield ReadingProcess(self._limits, document, chunks)


@dataclass(frozen=True)
class ReadingProcess:
    """The process that reads one document from a file and writes its chunks to another."""

    limits: ReadingLimits
    document: BinaryIO
    chunks: BinaryIO

    async def read(self, filename: str, copy: Callable[[BinaryIO], int], strategy: StaticChunking) -> ChunkFile:
        """Return the chunks of a document, which are on disk until the place is returned.

        Args:
            copy: writes the document to a file, called in a thread; returns 0 if the document is gone.

        Raises:
            UnreadableFileError: it has no text, or exceeds the limits.
            ReaderDiedError: the process was killed.
        """
        if not await asyncio.to_thread(copy, self.document):
            raise UnreadableFileError("the file was deleted")
        self.document.seek(0)
        job = {
            "filename": filename,
            "max_tokens": strategy.max_chunk_size_tokens,
            "overlap_tokens": strategy.chunk_overlap_tokens,
            "cpu_s": self.limits.cpu_s,
            "memory_bytes": self.limits.memory_bytes,
            "parent_pid": os.getpid(),
        }
        code = await self._run(json.dumps(job))
        if code != 0:
            raise self._fault(code)
        return ChunkFile(self.chunks)

    async def _run(self, job: str) -> int:
        """Run the process without the gateway's environment and return its exit code; may raise UnreadableFileError."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-B", "-X", "utf8", "-c", PROGRAM, job),
            stdin=self.document,
            stdout=self.chunks,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self.limits.wall_s):
                return await process.wait()
        except TimeoutError as error:
            limit = f"the {self.limits.wall_s:g} s that are allowed"
            raise UnreadableFileError(f"reading the file takes more than {limit}") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _fault(self, code: int) -> Exception:
        """Return the error for a process that ended without chunks."""
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            return ReaderDiedError()
        if code == REFUSED:
            self.chunks.seek(0)
            return UnreadableFileError(**json.loads(self.chunks.read()))
        used = {
            OUT_OF_MEMORY: f"{self.limits.memory_bytes >> 20} MB of memory",
            TOO_MUCH_OUTPUT: f"{MAX_OUTPUT_BYTES >> 20} MB of chunks",
            -signal.SIGXCPU: f"{self.limits.cpu_s} s of processor time",
        }
        if code not in used:
            return UnreadableFileError(f"the file is damaged: its reader ended with {code}")
        return UnreadableFileError(f"reading the file takes more than the {used[code]} that are allowed")
