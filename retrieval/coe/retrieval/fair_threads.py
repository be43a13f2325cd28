"""Threads with fair scheduling: long work comes in small pieces, and keys take turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from coe.base.errors import RequestError

PIECE_TEXTS = 32
PIECE_CHARS = 8_000
"""Characters of one piece, about 2,000 tokens: half a second of the default encoder on one core."""

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Work that a caller waits for; it is skipped if its result is already set."""

    call: Callable[[], Any]
    result: asyncio.Future[Any]


class FairThreads:
    """Threads that take the oldest piece of each key in turn, for one event loop; cancelled work is dropped."""

    def __init__(self, threads: int, name: str) -> None:
        self._free = threads
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._lines: dict[str, deque[Piece]] = {}  # by key, the one whose turn is next first
        self._is_closed = False

    async def run(self, key: str, call: Callable[..., T], *arguments: object, **options: object) -> T:
        """Run a call in a thread and return its result; raise RequestError 503 after `close`."""
        if self._is_closed:
            raise RequestError("the gateway is stopping", status=503, code="server_shutting_down", retry_after_s=1.0)
        piece = Piece(partial(call, *arguments, **options), asyncio.get_running_loop().create_future())
        self._lines.setdefault(key, deque()).append(piece)
        self._start()
        value: T = await piece.result
        return value

    def close(self) -> None:
        """Wait for running pieces and cancel the others. Blocks."""
        self._is_closed = True
        self._threads.shutdown(wait=True)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        while self._free and not self._is_closed and (piece := self._next()) is not None:
            self._free -= 1
            self._threads.submit(self._work, piece, loop)

    def _next(self) -> Piece | None:
        while self._lines:
            key = next(iter(self._lines))
            line = self._lines.pop(key)
            piece = line.popleft()
            if line:
                self._lines[key] = line
            if not piece.result.done():
                return piece
        return None

    def _work(self, piece: Piece, loop: asyncio.AbstractEventLoop) -> None:
        try:
            settle = partial(piece.result.set_result, piece.call())
        except BaseException as error:  # noqa: BLE001 - the waiting caller gets it
            settle = partial(piece.result.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no caller waits
            loop.call_soon_threadsafe(self._ended, piece, settle)

    def _ended(self, piece: Piece, settle: Callable[[], None]) -> None:
        self._free += 1
        if not piece.result.done():  # who waits has not left meanwhile
            settle()
        self._start()


def pieces(texts: Sequence[str]) -> Iterator[slice]:
    """Split texts into slices of at most `PIECE_TEXTS` texts and `PIECE_CHARS` characters, but at least one text."""
    start, chars = 0, 0
    for place, text in enumerate(texts):
        chars += len(text)
        if place > start and (place - start == PIECE_TEXTS or chars > PIECE_CHARS):
            yield slice(start, place)
            start, chars = place, len(text)
    if start < len(texts):
        yield slice(start, len(texts))
