"""Documents to chunks, in processes that can be ended, so that a hostile file harms only its owner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from retrieval.stores.chunking import StaticChunking
from retrieval.stores.document_text import UnreadableFileError
from retrieval.stores.reading_process import (
    CHUNKS,
    DOCUMENT,
    LENGTH_BYTES,
    MAX_OUTPUT_BYTES,
    OUT_OF_MEMORY,
    REFUSAL,
    REFUSED,
    TOO_MUCH_OUTPUT,
)

ROOT = str(Path(__file__).parents[2])
PROGRAM = f"import sys; sys.path.insert(0, {ROOT!r}); from retrieval.stores.reading_process import main; main()"
PROCESSES = 2  # so one slow file leaves a place for another owner's


class ReaderDiedError(Exception):
    """The process that reads documents ended on its own; the file may not be the cause."""


@dataclass(frozen=True)
class ReadingLimits:
    """Of the reading of one document: seconds of processor and clock, and bytes of address space."""

    cpu_s: int
    wall_s: float
    memory_bytes: int


@dataclass(frozen=True)
class ChunkFile:
    """Chunks on the disk, one after the other."""

    path: Path

    def __iter__(self) -> Iterator[str]:
        with self.path.open("rb") as file:
            while length := file.read(LENGTH_BYTES):
                yield file.read(int.from_bytes(length, "big")).decode()

    def text_bytes(self, count: int) -> int:
        """Bytes of all texts, which are `count`."""
        return self.path.stat().st_size - count * LENGTH_BYTES


class DocumentReader:
    """Reads up to `PROCESSES` documents at once; later ones wait in order of arrival.

    Processes are started when they are needed, with no environment of the gateway's, and stay for the next document
    unless one had to be ended.
    """

    def __init__(self, limits: ReadingLimits) -> None:
        self._limits = limits
        self.wall_s = limits.wall_s
        self._places = asyncio.Semaphore(PROCESSES)
        self._idle: list[ReadingProcess] = []
        self._ending: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[ReadingProcess]:
        """Lends a free process to the block, and ends it with the block if it is still reading."""
        async with self._places:
            process = self._idle.pop() if self._idle else ReadingProcess(self._limits)
            try:
                yield process
            finally:
                if process.is_busy:
                    self._end(process)
                else:
                    self._idle.append(process)

    async def aclose(self) -> None:
        """Ends those that wait for a document; cancel the tasks of the others before."""
        while self._idle:
            self._end(self._idle.pop())
        await asyncio.gather(*self._ending)

    def _end(self, process: ReadingProcess) -> None:
        process.kill()
        task = asyncio.create_task(process.until_ended(), name="reading-process-end")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class ReadingProcess:
    """One process with the folder that it reads from and writes to."""

    def __init__(self, limits: ReadingLimits) -> None:
        self._limits = limits
        self._folder = Path(tempfile.mkdtemp(prefix="coe-reading-"))
        self._process: asyncio.subprocess.Process | None = None
        self.is_busy = False

    async def read(self, filename: str, copy: Callable[[BinaryIO], int], strategy: StaticChunking) -> ChunkFile:
        """The chunks of a document; they stay on the disk until the next one.

        Args:
            copy: writes the document out, called in a thread; returns 0 when it is gone.

        Raises:
            UnreadableFileError: it holds no text, or takes more than the limits.
            ReaderDiedError: the process is gone.
        """
        self.is_busy = True
        await asyncio.to_thread(self._put, copy)
        limits = self._limits
        ended = await self._run(
            {
                "filename": filename,
                "max_tokens": strategy.max_chunk_size_tokens,
                "overlap_tokens": strategy.chunk_overlap_tokens,
                **vars(limits),
            }
        )
        self.is_busy = False
        if ended["is_late"]:
            raise UnreadableFileError(f"reading the file takes more than the {limits.wall_s:g} s that are allowed")
        if ended["code"] != 0:
            raise self._fault(ended["code"])
        return ChunkFile(self._folder / CHUNKS)

    def kill(self) -> None:
        """Ends it at once, with what it reads."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def until_ended(self) -> None:
        """Returns when it has gone with its folder, after `kill`."""
        if self._process is not None:
            await self._process.communicate()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _put(self, copy: Callable[[BinaryIO], int]) -> None:
        for name in (CHUNKS, REFUSAL):
            (self._folder / name).unlink(missing_ok=True)
        with (self._folder / DOCUMENT).open("wb") as document:
            if not copy(document):
                raise UnreadableFileError("the file was deleted")

    async def _run(self, job: dict[str, object]) -> dict[str, Any]:
        """The way in which the child ended. Raises ReaderDiedError."""
        process = self._process = self._process or await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise ReaderDiedError
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-B", "-X", "utf8", "-c", PROGRAM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=self._folder,
            env={},
            start_new_session=True,
        )

    def _fault(self, code: int) -> UnreadableFileError:
        """The fault of the document that the end of a child without chunks shows."""
        if code == REFUSED:
            return UnreadableFileError(**json.loads((self._folder / REFUSAL).read_bytes()))
        used = {
            OUT_OF_MEMORY: f"{self._limits.memory_bytes >> 20} MB of memory",
            TOO_MUCH_OUTPUT: f"{MAX_OUTPUT_BYTES >> 20} MB of chunks",
            -signal.SIGXCPU: f"{self._limits.cpu_s} s of processor time",
        }
        if code not in used:
            return UnreadableFileError(f"the file is damaged: its reader ended with {code}")
        return UnreadableFileError(f"reading the file takes more than the {used[code]} that are allowed")
