"""An expert's answer as clients may see it: begun or whole, within the time for an answer as a whole, without our key,
and an error without what is not the client's fault."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from base.errors import BackendError
from base.json_text import JsonError, from_json
from fleet.backend import ELSEWHERE, RETRY_AFTER_S, ChunkStream, is_spent, is_too_large, retry_after_s
from fleet.breaker import SPENT, SPENT_REST_S
from gateway.answer_reader import JsonAnswer
from gateway.http_errors import (
    CREDENTIALS,
    MAX_UPSTREAM_MESSAGE_CHARS,
    OUT_OF_QUOTA,
    TOO_LONG,
    WRONG_ENTRY,
    ApiError,
    named,
    not_ours,
)

if TYPE_CHECKING:
    from fleet.pool import Call

EVENT_STREAM = "text/event-stream"
MASK = "***"

MISCONFIGURED = frozenset({404, 405, 410})
"""Statuses of an expert whose entry in experts.yaml is wrong: no request of a client can cause these."""

KEY_LIKE = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|r8|pplx|ghp|glpat|nvapi|tgp)[-_][\w.*-]{6,}"
    r"|\bAIza[\w*-]{8,}|\bAKIA[A-Z0-9*]{8,}"
    r"|(?<=\bbearer )\s*[\w.~+/=*-]{6,}"
    r"|(?<=\bapi key: )[^\s'\",;]+|(?<=\bapi key provided: )[^\s'\",;]+",
    re.IGNORECASE,
)
"""Pattern of providers' keys, in part hidden or not, and of what is introduced as one. Linear: nothing in it nests."""


TOO_LONG_WORDS = re.compile(
    r"maximum (?:context|model|prompt) length"  # vLLM, OpenRouter, Mistral, xAI
    r"|longer than the model's context length"  # SGLang
    r"|prompt is too long"  # Anthropic
    r"|exceeds the (?:context window|maximum number of tokens)",  # OpenAI, Gemini
    re.IGNORECASE,
)
"""Ways to say that a prompt is longer than the expert's context. llama.cpp's error has a type of its own."""

CONTEXT_ERROR = "exceed_context_size_error"


@dataclass(slots=True)
class StreamedAnswer:
    """A stream whose first content is here. Close `chunks` in any case.

    Args:
        call: the call of the expert that ends with the stream; None where it has ended already.
        is_native: the expert got the client's own request and answers on its wire.
        hides_usage: the gateway asked for the usage that the stream may report; its client did not.
        is_whole: the expert sent it in one piece, which is all in `first`.
        left_out: fields of the request that the expert does not take.
    """

    expert: str
    content_type: str
    first: bytes
    chunks: ChunkStream
    is_native: bool = False
    hides_usage: bool = False
    engine: int | None = None
    is_whole: bool = False
    left_out: tuple[str, ...] = ()
    call: Call | None = None


@dataclass(slots=True)
class WholeAnswer:
    """A complete answer with its usage and finish reason."""

    expert: str
    content_type: str
    body: bytes
    facts: JsonAnswer
    is_native: bool = False
    engine: int | None = None
    left_out: tuple[str, ...] = ()


def without_keys(text: str, key: str | None) -> str:
    """An error's text without our key, and without what looks like a key."""
    return KEY_LIKE.sub(MASK, text if not key else text.replace(key, MASK))


def key_pattern(key: str) -> re.Pattern[bytes]:
    """A key as JSON may write it: each character, or its escape."""
    written = (
        rb"(?:"
        + re.escape(byte)
        + rb"|\\u00(?i:"
        + byte.hex().encode()
        + rb")"
        + (rb"|\\/)" if byte == b"/" else rb")")
        for byte in (bytes([each]) for each in key.encode())
    )
    return re.compile(b"".join(written))


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
        self._key = key_pattern(key) if key else None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with self._time:
            lines = await anext(self._chunks)
        return lines if self._key is None else self._key.sub(MASK.encode(), lines)

    async def aclose(self) -> None:
        self._time.close()
        await self._chunks.aclose()


def too_late(total_s: float) -> BackendError:
    return BackendError(f"the expert's answer took longer than total_timeout_s={total_s:g}", status=504)


def upstream_error(
    expert: str, status: int, body: bytes, headers: Mapping[str, str], key: str | None = None
) -> ApiError:
    """The client's view of an expert's answer with an error status.

    An error keeps its status and what it says in the fields of OpenAI's, without our key and what looks like one. What
    an expert says of our key, its model or its address, or a redirect, is the gateway's fault and becomes a 502 with a
    text of ours, and another expert may be asked: nothing was generated. So is an account without quota, which becomes
    a 429. A 429 has a time to wait, unless the request alone is above the expert's limit.
    """
    is_large = is_too_large(status, body)
    if is_spent(status, body):
        lack = "has too little credit for so long an answer at its provider" if is_large else SPENT
        message, rest_s = f"expert {expert} {lack}", None if is_large else SPENT_REST_S
        return ApiError(message, status=429, code=OUT_OF_QUOTA, retry_after_s=rest_s, rest_s=rest_s, is_retryable=True)
    status = status if status < 600 else 502  # LinkedIn's 999 and others that HTTP does not know
    said_s, fields = retry_after_s(headers), error_fields(body)
    fault: tuple[str, str] | None = None
    if status in (401, 403, 407) and not (status == 403 and is_flagged(fields)):
        fault = CREDENTIALS, "refused the gateway's credentials"
    elif status in MISCONFIGURED:
        fault = WRONG_ENTRY, f"answered with status {status}: its address or model is not what it serves"
    elif status < 400:
        fault = "expert_broken_answer", f"answered with status {status}"
    if fault is not None:
        return ApiError(f"expert {expert} {fault[1]}", status=502, code=fault[0], is_retryable=True)
    wait_s = RETRY_AFTER_S if said_s is None and status in (429, 503, 529) else said_s
    is_retryable = is_large or status in ELSEWHERE
    wordless = {"message": f"expert {expert} answered with status {status}"}
    said = (fields or wordless).items()
    shown = {name: without_keys(value, key) if isinstance(value, str) else value for name, value in said}
    message = str(shown["message"])[:MAX_UPSTREAM_MESSAGE_CHARS]
    code, param, kind = not_ours(shown.get("code")), shown.get("param"), not_ours(shown.get("type"))
    if status >= 500:
        message = named(message, expert)
    if status == 400 and (kind == CONTEXT_ERROR or TOO_LONG_WORDS.search(message)):
        code = TOO_LONG
    return ApiError(
        message,
        status=status,
        code=code if isinstance(code, str) else None if fields else "expert_error",
        param=param if isinstance(param, str) else None,
        error_type=kind if isinstance(kind, str) and code != TOO_LONG else None,
        retry_after_s=None if is_large else wait_s,
        rest_s=None if is_large or not is_retryable else wait_s if status == 429 else said_s,
        is_retryable=is_retryable,
    )


def is_flagged(fields: Mapping[str, object] | None) -> bool:
    """Returns True for the error by which OpenRouter says that its moderation refused a prompt (403): no fault of our
    key, so one client's prompts keep the expert from no other."""
    metadata = fields.get("metadata") if fields else None
    return isinstance(metadata, dict) and "flagged_input" in metadata


def error_fields(body: bytes) -> dict[str, object] | None:
    """The error object of an expert's body: OpenAI's `{"error": {...}}`, vLLM's older flat form, or what FastAPI calls
    `detail`, a text or a list of faults; None if none of them."""
    try:
        values = from_json(body, has_unique_keys=False)
    except JsonError:
        return None
    if isinstance(values, list) and len(values) == 1:  # as Gemini sends it
        values = values[0]
    if not isinstance(values, dict):
        return None
    if isinstance(values.get("message"), dict):  # around what FastAPI says, as Mistral sends it
        values = values["message"]
    inner = values.get("error", values.get("detail", values))
    if isinstance(inner, list):
        faults = (each for each in inner if isinstance(each, dict) and "msg" in each)
        inner = "; ".join(f"{each.get('loc')}: {each['msg']}" for each in faults)
    if inner and isinstance(inner, str):
        return {"message": inner}
    return inner if isinstance(inner, dict) and isinstance(inner.get("message"), str) else None
