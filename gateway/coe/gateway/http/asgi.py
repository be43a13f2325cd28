"""ASGI in small: the types, reading a body within a limit, answering, and noticing that the client left."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from coe.base.json_text import JsonError, from_json
from coe.gateway.http_errors import ApiError, ClientGoneError, invalid

if TYPE_CHECKING:
    from coe.gateway.exchange import Watch
    from coe.gateway.http.admission import Admission
    from coe.gateway.keys.grants import Caller

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

EXTENSIONS, PEER, BODY = "extensions", "coe.peer", "coe.body"
"""Extensions of ASGI by `LimitedProtocol`: the `Peer`, and an entry once the last byte of the body has come."""

BODY_TIMEOUT_S = 30.0
SKIPPED_BODY_FACTOR = 16  # a refused body up to so many limits is read and dropped, so that its sender sees the answer

REQUEST_ID = re.compile(rb"[\w.:-]{1,128}", re.ASCII)

LARGE_BYTES = 256 * 1024
MANY_VALUES = 4_000
"""JSON of this size, or perhaps of so many values, is read in a thread: the event loop answers others meanwhile. Text
takes a microsecond for a kilobyte, an empty list as much and a half, and the thread itself 100."""

T = TypeVar("T")

# A parser holds the interpreter while it runs, so a second thread would not be quicker; it would crowd out the loop.
READER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coe-json")


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int, admission: Admission) -> bytes:
    """The request's body; `admission` says whether there is room for it.

    Raises:
        ApiError: 413 too large (by its announced length before anything is read), 415 compressed, 408 too slow, 429 or
            503 no room.
        ClientGoneError: the client left while sending.
    """
    admission.expect(announced_length(headers, max_bytes))
    if (
        admission.is_here and not admission.is_large
    ):  # nothing to wait for, so no time limit and no place among what arrives
        piece, _ = await next_piece(receive, max_bytes, admission)
        admission.expect(admission.received_bytes)
        return piece
    pieces: list[bytes] = []
    has_more = True
    async with admission.arrival(BODY_TIMEOUT_S):
        while has_more:
            piece, has_more = await next_piece(receive, max_bytes, admission)
            admission.expect(admission.received_bytes)
            pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def announced_length(headers: Mapping[bytes, bytes], max_bytes: int) -> int:
    """The length that the body announces, 0 when it does not. Raises ApiError 413 too large, 415 compressed."""
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        raise ApiError(
            "the body must not be compressed; allowed content-encoding: identity",
            status=415,
            code="unsupported_encoding",
        )
    announced = headers.get(b"content-length", b"0")
    if not announced.isdigit() or len(announced) > 18 or int(announced) > max_bytes:
        raise too_large(max_bytes)
    return int(announced)


async def next_piece(receive: Receive, max_bytes: int, admission: Admission) -> tuple[bytes, bool]:
    """A piece of the body, and whether more follow. Raises ApiError 413 once it is too large, ClientGoneError."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    piece: bytes = message.get("body", b"")
    admission.received_bytes += len(piece)
    if admission.received_bytes > max_bytes:
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


def decode_json(raw: bytes) -> object:
    """The value of a body.

    Raises:
        ApiError: not JSON, a key twice in one object, too many values or nested too deep; what is wrong and where.
    """
    try:
        return from_json(raw)
    except JsonError as error:
        raise invalid(f"the body {error}", code="invalid_json") from error


async def read_off_loop(read: Callable[[bytes], T], raw: bytes) -> T:
    """`read(raw)`; of a usual body at once, which takes microseconds. Raises what `read` does."""
    if len(raw) < LARGE_BYTES and (len(raw) < MANY_VALUES or most_values(raw) < MANY_VALUES):
        return read(raw)
    return await asyncio.get_running_loop().run_in_executor(READER, read, raw)


def most_values(raw: bytes) -> int:
    """An upper bound of the values in a JSON text: its commas and brackets, in strings too. `count` takes six times as
    long as `replace` to find that there are few."""
    return 1 + sum(len(raw) - len(raw.replace(mark, b"")) for mark in (b",", b"[", b"{"))


async def off_loop(work: Callable[[], T], raw: bytes) -> T:
    """`work()` on what was read from a body, in the thread where that takes long. Raises what `work` does."""
    return await read_off_loop(lambda _: work(), raw)


async def send_body(
    send: Send, status: int, body: bytes, headers: Mapping[str, str], content_type: str = "application/json"
) -> None:
    """A whole answer."""
    all_headers = {"content-type": content_type, "content-length": str(len(body)), **headers}
    await send_head(send, status, all_headers)
    await send({"type": "http.response.body", "body": body})


async def send_head(send: Send, status: int, headers: Mapping[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The client's request id where it is safe to repeat in headers and logs, else a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if REQUEST_ID.fullmatch(given) else f"req-{os.urandom(12).hex()}"


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body read before, then what comes after it."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def without_body(send: Send) -> Send:
    """A `send` for HEAD: the head that GET would have, and nothing after it."""

    async def send_head_only(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head_only


def error_answer(error: ApiError, headers: Mapping[str, str] | None = None) -> Application:
    """An application that answers every request with an error."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send_body(send, error.status, error.body, {**(headers or {}), **error.headers})

    return answer


class Peer:
    """The client at the other end of a connection, and the tasks that end when it leaves."""

    def __init__(self) -> None:
        self.has_left = False
        self.tasks: set[asyncio.Task[object]] = set()

    def leave(self) -> None:
        """The connection is lost."""
        self.has_left = True
        for task in self.tasks:
            task.cancel()


class Arrival(NamedTuple):
    """A request whose head has come and whose sender is known, and the means to read it and to answer.

    Args:
        request_id: the client's, or a new one.
        admission: its room for a body.
        watch: None where requests are neither traced nor logged.
        is_batch: a line of a batch, which the gateway itself asks.
    """

    scope: Scope
    headers: Mapping[bytes, bytes]
    request_id: str
    receive: Receive
    send: Send
    caller: Caller
    peer: Peer
    admission: Admission
    watch: Watch | None = None
    is_batch: bool = False


class ClientWatch:
    """Cancels the work inside when the client leaves: `with ClientWatch(peer): ...`.

    Raises:
        ClientGoneError: out of the block, in place of the cancellation; at its begin where the client left before.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("ClientWatch needs a task")
        if self._peer.has_left:
            raise ClientGoneError
        self._task = task
        self._peer.tasks.add(task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._peer.tasks.discard(self._task)
        if self._peer.has_left and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGoneError from error
