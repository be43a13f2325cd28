"""The seam between the gateway and a provider: a request, the answer's head, and its bytes as they arrive."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from coe.base.errors import BackendError
from coe.base.json_text import JsonError, from_json

MAX_ERROR_BYTES = 1 << 20
MAX_ANSWER_BYTES = 16 << 20
MAX_ANSWER_VALUES = 1_000_000
"""Of a whole answer: the log-probabilities of a token are over a hundred."""

MAX_EVENT_BYTES = 8 << 20
"""Of an event of a stream, and of a line of one."""

RETRY_AFTER_S = 1.0
SPENT, SPENT_COOLDOWN_S = "is without quota or credit at its provider", 600.0
"""Wait before another try where nobody says for how long."""

ELSEWHERE = frozenset({408, 429, 498, 500, 502, 503, 504, *range(520, 525), 529})
"""Statuses by which an engine, or what is before it, says that it gives no answer now, which another one may give: 498
is Groq's and 529 Anthropic's when it is overloaded, and from 520 on they are Cloudflare's."""

MAX_RETRY_AFTER_S = 3600.0
NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


class BackendRequest(NamedTuple):
    """A chat request on its way to one expert. `body` is the client's JSON object, decoded once; a backend replaces
    `model` (and what selects an adapter) and changes nothing else. `path` is relative to the API root.

    `headers` go with it: those of the client that the expert's API asks for, and the context of a trace.
    `cache_salt` differs between callers: an engine that shares cached prompts shares them among requests of one salt.
    One that serves by priority serves a line of a batch after other requests. `client_params`: its fields replace the
    expert's `params`, where otherwise the params replace them.
    """

    body: Mapping[str, object]
    path: str = "chat/completions"
    is_stream: bool = False
    request_id: str = ""
    timeout_s: float = 600.0
    cache_salt: str = ""
    is_batch: bool = False
    headers: Mapping[str, str] = MappingProxyType({})
    client_params: bool = False


EFFORT = frozenset({"reasoning_effort", "reasoning", "thinking", "thinking_token_budget", "chat_template_kwargs"})
"""Fields by which a request says how long a model may reason. Each undoes the others."""


def with_params(request: BackendRequest, params: Mapping[str, object]) -> dict[str, object]:
    """Return the body with an expert's params.

    Params replace the client's fields of the same names. If one of them sets the effort, the client's other fields
    about effort are left out.
    """
    if request.client_params or not params:
        return {**params, **request.body}
    replaced = EFFORT if EFFORT & params.keys() else params.keys()
    return {name: value for name, value in request.body.items() if name not in replaced} | {**params}


class ChunkStream(Protocol):
    """The bytes of an answer as they arrive: whole lines, and at the end what is left.

    `aclose` before the end cancels the generation; it never raises."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes:
        """The next piece. Raises BackendError when the answer was cut."""
        ...

    async def aclose(self) -> None: ...


class WholeLines:
    """Bytes that come in pieces, cut anywhere, as whole lines, so that no reader has to join them.

    Args:
        max_bytes: of a line.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._begun = bytearray()  # a line that is not whole yet

    def feed(self, piece: bytes) -> bytes:
        """Gives the lines that are whole now; may be empty. Raises BackendError where one becomes too large."""
        if not self._begun and piece.endswith(b"\n"):
            return piece
        end = piece.rfind(b"\n") + 1
        lines = self.rest() + piece[:end] if end else b""
        self._begun += piece[end:]
        if len(self._begun) > self._max_bytes:
            raise BackendError(f"a line of the expert's answer is larger than {self._max_bytes} bytes", status=502)
        return lines

    def rest(self) -> bytes:
        """Gives what has come of the last line."""
        rest = bytes(self._begun)
        self._begun.clear()
        return rest


@dataclass(slots=True)
class BackendResponse:
    """An expert's answer. `chunks` yields the body exactly as it came.

    `headers` holds only what a client may see. `engine` is set by an expert with several engines, or with places that
    are counted, from 1 in the order of addresses. `left_out` are fields of the client's that the expert does not take.
    """

    status: int
    chunks: ChunkStream
    headers: dict[str, str] = field(default_factory=dict)
    engine: int | None = None
    left_out: tuple[str, ...] = ()


def visible_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of an expert that a client may see."""
    return {name: headers[name] for name in ("content-type", "retry-after") if name in headers}


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The header Retry-After, a number or a date, in seconds from now, at most an hour; None where it says neither."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(said) if NUMBER.fullmatch(said) else parsedate_to_datetime(said).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


async def read_all(chunks: ChunkStream, max_bytes: int) -> bytes:
    """Raises BackendError when the body is cut or larger than `max_bytes`."""
    pieces: list[bytes] = []
    size = 0
    async for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise BackendError(f"the expert's answer is larger than {max_bytes} bytes", status=502)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def chunks_of(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """A body that is here already."""
    for piece in pieces:
        yield piece


def reply_json(text: bytes) -> Any:
    """The value of an expert's JSON, which may repeat a key: no decision depends on it. Raises JsonError."""
    return from_json(text, max_values=MAX_ANSWER_VALUES, has_unique_keys=False)


def is_too_large(status: int, body: bytes) -> bool:
    """Returns True for the refusal of a request that alone has more tokens than its provider allows in a minute, as
    OpenAI (429) and Groq (413) word it, or than OpenRouter's credit pays for (402): no wait helps it, and others are
    not concerned."""
    words = b"fewer max_tokens" if status == 402 else b"request too large"
    return status in (402, 413, 429) and words in body.lower()


SPENT_CODES = ("insufficient_quota", "billing_hard_limit_reached")  # OpenAI
SPENT_WORDS = "Your credit balance is too low"  # Anthropic


def is_spent(status: int, body: bytes) -> bool:
    """Returns True where a refusal says that the account with the provider has no quota or credit left, which somebody
    has to pay for: no short wait helps. Only the error itself counts: servers may repeat what a client sent."""
    if status not in (400, 429):
        return status == 402
    try:
        error = from_json(body, has_unique_keys=False)["error"]
        codes, message = (error.get("code"), error.get("type")), str(error.get("message"))
    except (JsonError, LookupError, TypeError, AttributeError):
        return False
    return any(code in SPENT_CODES for code in codes) or message.startswith(SPENT_WORDS)


@runtime_checkable
class ChatBackend(Protocol):
    """Sends requests to one expert."""

    async def send(self, request: BackendRequest) -> BackendResponse:
        """Returns once the answer's head is there. HTTP errors of the expert come back as a response with their status.

        Raises:
            BackendError: no connection, no head in time, or a broken head.
        """
        ...

    async def is_alive(self) -> bool:
        """A cheap probe; False instead of raising."""
        ...

    async def aclose(self) -> None: ...


class Unconnected:
    """Probe and end of a backend that holds no connection."""

    async def is_alive(self) -> bool:
        return True

    async def aclose(self) -> None:
        """Nothing is open."""
