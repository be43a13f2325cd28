"""ASGI in small: the types, reading a body within a limit, answering, and noticing that the client left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Self

from gateway.http_errors import ApiError, ClientGoneError
from gateway.intake import Claim

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_TIMEOUT_S = 30.0
SKIPPED_BODY_FACTOR = 16  # a refused body up to so many limits is read and dropped, so that its sender sees the answer


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int, claim: Claim) -> bytes:
    """The request's body; `claim` says whether there is room for it.

    Raises:
        ApiError: 413 too large (by its announced length before anything is read), 415 compressed, 408 too slow, 429 or
            503 no room.
        ClientGoneError: the client left while sending.
    """
    claim.expect(announced_length(headers, max_bytes))
    pieces: list[bytes] = []
    has_more = True
    async with claim.arrival(BODY_TIMEOUT_S):
        while has_more:
            piece, has_more = await next_piece(receive, max_bytes, claim)
            claim.expect(claim.received_bytes)
            pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def announced_length(headers: Mapping[bytes, bytes], max_bytes: int) -> int:
    """The length that the body announces, 0 when it does not. Raises ApiError 413 too large, 415 compressed."""
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding != b"identity":
        raise ApiError(
            "the body must not be compressed; allowed content-encoding: identity",
            status=415,
            code="unsupported_encoding",
        )
    announced = headers.get(b"content-length", b"0")
    if not announced.isdigit() or len(announced) > 18 or int(announced) > max_bytes:
        raise too_large(max_bytes)
    return int(announced)


async def next_piece(receive: Receive, max_bytes: int, claim: Claim) -> tuple[bytes, bool]:
    """A piece of the body, and whether more follow. Raises ApiError 413 once it is too large, ClientGoneError."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    piece: bytes = message.get("body", b"")
    claim.received_bytes += len(piece)
    if claim.received_bytes > max_bytes:
        raise too_large(max_bytes)
    return piece, message.get("more_body", False)


def too_large(max_bytes: int) -> ApiError:
    return ApiError(f"the body is larger than the limit of {max_bytes} bytes", status=413, code="body_too_large")


def must_close(headers: Mapping[bytes, bytes], error: ApiError, max_bytes: int) -> bool:
    """Returns True where the connection ends with this refusal: the body does not arrive, or is not worth reading."""
    if error.status != 413:
        return error.status == 408
    announced = headers.get(b"content-length", b"")
    return not announced.isdigit() or len(announced) > 18 or int(announced) > max_bytes * SKIPPED_BODY_FACTOR


async def send_body(
    send: Send, status: int, body: bytes, headers: Mapping[str, str], content_type: str = "application/json"
) -> None:
    """A whole answer."""
    all_headers = {"content-type": content_type, "content-length": str(len(body)), **headers}
    await send_head(send, status, all_headers)
    await send({"type": "http.response.body", "body": body})


async def send_head(send: Send, status: int, headers: Mapping[str, str]) -> None:
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def send_error(send: Send, error: ApiError, headers: Mapping[str, str]) -> None:
    await send_body(send, error.status, error.body, {**headers, **error.headers})


def error_answer(error: ApiError, headers: Mapping[str, str] | None = None) -> Application:
    """An application that answers every request with an error."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send_error(send, error, headers or {})

    return answer


class ClientWatch:
    """Cancels the work inside when the client leaves: `async with ClientWatch(receive): ...`.

    Raises:
        ClientGoneError: out of the block, in place of the cancellation.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("ClientWatch needs a task")
        self._task = task
        self._watcher = asyncio.create_task(self._watch(), name="client-watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        if self._is_gone and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGoneError from error

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._task.cancel()
