"""An expert's answer as clients may see it: within the time for an answer as a whole, and without our key."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from types import TracebackType

from base.errors import BackendError
from router.protocols import ChunkStream

MASK = "***"

KEY_LIKE = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|r8|pplx|ghp|glpat|nvapi|tgp)[-_][\w.*-]{6,}"
    r"|\bAIza[\w*-]{8,}|\bAKIA[A-Z0-9*]{8,}"
    r"|(?<=\bbearer )\s*[\w.~+/=*-]{6,}"
    r"|(?<=\bapi key: )[^\s'\",;]+|(?<=\bapi key provided: )[^\s'\",;]+",
    re.IGNORECASE,
)
"""Pattern of providers' keys, in part hidden or not, and of what is introduced as one. Linear: nothing in it nests."""


def without_keys(text: str, key: str | None) -> str:
    """An error's text without our key, and without what looks like a key."""
    return KEY_LIKE.sub(MASK, text if not key else text.replace(key, MASK))


class KeyFilter:
    """Takes one text out of bytes that come in pieces, cut anywhere. Holds back only what may be its beginning."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Gives the bytes that can be passed on; may be empty."""
        text = (self._held + piece).replace(self._key, MASK.encode())
        held = next((n for n in range(len(self._key) - 1, 0, -1) if text.endswith(self._key[:n])), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> bytes:
        """Gives the bytes that were held back to the end."""
        rest, self._held = self._held, b""
        return rest


class AnswerTime:
    """The time that an expert has for an answer as a whole: `with time:` around each wait for it. Close it in any case.

    One timer serves all of them: `asyncio.timeout_at` around each takes 4 us, as much as passing a piece on.

    Args:
        total_s: from now on; the message states it.

    Raises:
        BackendError: out of the block, 504 once the time is over; at its begin where it was over before.
    """

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._waiting: asyncio.Task[object] | None = None
        self._cancels_before = 0
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(total_s, self._expire)

    def __enter__(self) -> None:
        if self._is_over:
            raise too_late(self._total_s)
        task = self._waiting = asyncio.current_task(self._loop)
        self._cancels_before = task.cancelling() if task else 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        task, self._waiting = self._waiting, None
        if kind is asyncio.CancelledError and task and self._is_over and task.uncancel() <= self._cancels_before:
            raise too_late(self._total_s) from error  # where nobody else has cancelled

    def close(self) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self._is_over = True
        if self._waiting is not None:
            self._waiting.cancel()


class GuardedChunks:
    """An answer that ends within its time, and does not hold the expert's key. Close it in any case."""

    def __init__(self, chunks: ChunkStream, *, time: AnswerTime, key: str | None) -> None:
        self._chunks, self._time = chunks, time
        self._filter = KeyFilter(key) if key else None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            try:
                with self._time:
                    piece = await anext(self._chunks)
            except StopAsyncIteration:
                rest = b"" if self._filter is None else self._filter.rest()
                if not rest:
                    raise
                return rest
            passed = piece if self._filter is None else self._filter.feed(piece)
            if passed:
                return passed

    async def aclose(self) -> None:
        self._time.close()
        await self._chunks.aclose()


def too_late(total_s: float) -> BackendError:
    return BackendError(f"the expert's answer took longer than total_timeout_s={total_s:g}", status=504)
