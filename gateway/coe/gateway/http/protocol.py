"""uvicorn's HTTP protocol with limits: connections, the head of a request, and what is not quite HTTP/1.1."""

from __future__ import annotations

import logging
import re
import time
from asyncio import TimerHandle, get_running_loop
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from coe.gateway.http.asgi import BODY, EXTENSIONS, PEER, Peer, Scope, error_answer
from coe.gateway.http_errors import ApiError, not_now

MAX_HEAD_BYTES = 32 * 1024
HEAD_TIMEOUT_S = 15.0
LOG_FULL_EVERY_S = 60.0
LINGER_S = 10.0  # the rest of a refused body is read and dropped for so long, so that its sender sees the answer
STALL_S = 60.0  # a client that takes nothing of its answer for so long holds a place for nobody
HTTP_VERSIONS = ("1.0", "1.1")
WITHOUT_BODY = frozenset({204, 304})
OFFER = re.compile(rb"\r\nupgrade(?![-\w])", re.IGNORECASE)
REFUSED_OFFER = b"\r\nx-offer"  # as long, and different in each letter, so that any part of it in a later piece will do
IN_NAMES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
IN_VALUES = bytes({*range(256)} - {*range(32), 0x7F} | {*b"\t"})

# Two of one of these could be read as two requests: a proxy takes the first, we the last, or the other way round.
SINGLE_HEADERS = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"origin",
        b"transfer-encoding",
        b"x-api-key",
        b"x-coe-debug",
        b"x-coe-probe",
        b"x-request-id",
        b"x-session-id",
    }
)

Headers = Sequence[tuple[bytes, bytes]]
logger = logging.getLogger(__name__)


class LimitedProtocol(HttpToolsProtocol):
    """Answers heads that are too large or ambiguous with an error in OpenAI's shape, and closes what takes too long.

    Args:
        is_stopping: from then on every answer is the last of its connection.
        on_full: called for each connection that is closed or refused because there are too many.
        others: as uvicorn gives them.
    """

    _stuck_bytes = 0  # received in a row without a head, a piece of body or a message becoming complete
    _is_in_head = True
    _awaits_head = True  # as `_is_in_head`, and from the end of a message on
    _begun = b""  # the last bytes of a head whose rest has not arrived yet
    _has_moved = False
    _idle_since_s = 0.0
    _timer: TimerHandle | None = None
    _stalled: TimerHandle | None = None  # while the client takes nothing of its answer

    def __init__(
        self, *, max_connections: int, is_stopping: Callable[[], bool], on_full: Callable[[], None], **others: Any
    ) -> None:
        super().__init__(**others)
        self._max_connections, self._is_stopping, self._on_full = max_connections, is_stopping, on_full

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._peer = Peer()
        self._idle_since_s = self.loop.time()
        self._time_head()
        if len(self.connections) > self._max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)
        self._peer.leave()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def data_received(self, data: bytes) -> None:
        was_in_head, self._has_moved = self._is_in_head, False
        if self._begun or (self._awaits_head and b"pgrade" in data):
            data = without_offer(self._begun, data)
        super().data_received(data)
        self._begun = (self._begun + data)[1 - len(REFUSED_OFFER) :] if self._is_in_head else b""
        if self._is_in_head:  # most heads are here in one piece
            self._time_head()
        is_stuck = (was_in_head and self._is_in_head) or not self._has_moved
        self._stuck_bytes = self._stuck_bytes + len(data) if is_stuck else 0
        if self._stuck_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._answer_and_close(too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(Scope, self.scope)[EXTENSIONS] = {PEER: self._peer}
        self._is_in_head, self._stuck_bytes = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        # What follows a chunked body is not part of the head: it is unchecked, so it is dropped.
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._is_in_head, self._awaits_head, self._has_moved = False, False, True
        fault = head_fault(self.parser.get_http_version(), self.url, self.headers)
        if self.parser.should_upgrade():  # it takes the body for another protocol's, and what follows for a request
            fault = malformed("another protocol, by 'upgrade' or CONNECT, is not supported; allowed: HTTP/1.1")
        if fault is not None:
            self.app = cast(Any, error_answer(fault, {"connection": "close"}))
        super().on_headers_complete()
        vars(self.cycle)["send"] = Sender(self.cycle)
        if self._is_stopping():
            self.cycle.keep_alive = False  # its next request goes to another gateway

    def on_body(self, body: bytes) -> None:
        self._has_moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._awaits_head, self._has_moved = True, True
        cast(Scope, self.scope)[EXTENSIONS][BODY] = {}
        if self.cycle.response_complete:
            self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._idle_since_s = self.loop.time()
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._stop_timer()
            self._timer = self.loop.call_later(LINGER_S, self._close)

    def send_400_response(self, msg: str) -> None:
        """The parser's refusal; `msg` is uvicorn's own text. Nothing goes into the middle of an answer."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not (cycle.response_started or self.pipeline):
            self._answer_and_close(malformed("the request is not valid HTTP/1.1"))
        else:
            self.transport.close()

    def _make_room(self) -> None:
        """Closes the connection that was idle longest, of the peer that has most; without one, refuses this one."""
        others = [each for each in self.connections if isinstance(each, LimitedProtocol) and each is not self]
        open_ones = [each for each in others if not each.transport.is_closing()]
        if len(open_ones) < self._max_connections:
            return
        self._on_full()
        peers = Counter(each.peer for each in others)
        idle = [each for each in open_ones if each.cycle is None or each.cycle.response_complete]
        if idle:
            max(idle, key=lambda each: (peers[each.peer], -each._idle_since_s)).transport.close()
        else:
            limit = f"the gateway is at its limit of {self._max_connections} connections; try again later"
            self._answer_and_close(not_now(limit, "overloaded"))

    @property
    def peer(self) -> str:
        """The address at the other end, without its port."""
        return self.client[0] if self.client else ""

    def _time_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _answer_and_close(self, error: ApiError) -> None:
        """Answers without an application."""
        headers = {
            "content-type": "application/json",
            "content-length": str(len(error.body)),
            "connection": "close",
            **error.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[error.status] + lines.encode("latin-1") + b"\r\n" + error.body)
        self.transport.close()


class Sender:
    """The `send` of a usual answer: its head is checked as a whole, and leaves with the first piece in one packet.

    uvicorn's own takes some fifty calls for a head of ten lines. It still writes the rare ones: to HEAD, without a
    body, the last of a connection, or with a header that is not plain.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._plain = cycle, cycle.send
        self._is_plain = False
        self._head = b""  # waits for the first piece
        self._left: int | None = None  # bytes of the body that are still to come; None: until it ends
        self._is_old = cycle.scope["http_version"] == "1.0"  # which knows no chunks: its body ends with the connection

    async def __call__(self, message: Any) -> None:
        cycle = self._cycle
        if not cycle.response_started and message["type"] == "http.response.start":
            self._is_plain = cycle.disconnected or cycle.flow.write_paused or not self._begin(message)
        if self._is_plain or cycle.response_complete or not cycle.response_started:
            await self._plain(message)
        elif message["type"] == "http.response.body":
            if cycle.flow.write_paused and not cycle.disconnected:
                await cycle.flow.drain()
            if not cycle.disconnected:
                self._go_on(message.get("body", b""), is_last=not message.get("more_body", False))

    def _begin(self, message: Any) -> bool:
        """Takes the head; False where it is not a usual one."""
        cycle, status = self._cycle, message["status"]
        is_last = not cycle.keep_alive and not self._is_old
        if is_last or cycle.scope["method"] == "HEAD" or status in WITHOUT_BODY:
            return False
        headers = [*cycle.default_headers, *message["headers"]]
        close = b"connection: close\r\n" if self._is_old else b""
        framing = close or b"transfer-encoding: chunked\r\n"
        pieces: list[bytes] = []
        for name, value in headers:
            if name == b"content-length":
                self._left, framing = int(value), close
            elif name in (b"connection", b"transfer-encoding"):
                return False
            pieces += (name, b": ", value, b"\r\n")
        names, lines = b"".join(pieces[::4]), b"".join(pieces)
        ends = lines.translate(None, IN_VALUES)  # as many as headers, where each is one line
        if names.translate(None, IN_NAMES) or ends != b"\r\n" * len(headers):
            return False
        self._head = STATUS_LINE[status] + lines + framing + b"\r\n"
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        if self._left is None:
            get_running_loop().call_soon(self._flush)  # where no piece follows at once
        return True

    def _go_on(self, body: bytes, *, is_last: bool) -> None:
        cycle, head = self._cycle, self._head
        if self._left is None and not self._is_old:
            self._head, piece = b"", b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            cycle.transport.write(b"%b%b%b" % (head, piece, b"0\r\n\r\n" if is_last else b""))
        else:
            if self._left is not None:
                self._left -= len(body)
                if self._left < 0 or (is_last and self._left):
                    raise RuntimeError("the body does not have the length that the head says")
            self._head = b""
            cycle.transport.write(head + body)
        if is_last:
            vars(cycle).pop("send")  # which refers to the cycle: without this only the garbage collector would end both
            cycle.response_complete = True
            cycle.message_event.set()
            if not cycle.keep_alive:
                cycle.transport.close()
            cycle.on_response()

    def _flush(self) -> None:
        if self._head and not self._cycle.disconnected:
            self._cycle.transport.write(self._head)
        self._head = b""


class FullNotice:
    """To be called for each connection that is closed or refused because there are too many: counts it, and says so in
    the log at once and then at most every LOG_FULL_EVERY_S.

    Args:
        count: counts one more.
    """

    def __init__(self, max_connections: int, count: Callable[[], None]) -> None:
        self._max_connections, self._count = max_connections, count
        self._unsaid, self._next_s = 0, float("-inf")

    def __call__(self) -> None:
        self._count()
        self._unsaid += 1
        if (now_s := time.monotonic()) >= self._next_s:
            logger.warning(
                "there are %d connections, as many as gateway.max_connections allows: closed an idle one, or refused a "
                "new one, %d times",
                self._max_connections,
                self._unsaid,
            )
            self._unsaid, self._next_s = 0, now_s + LOG_FULL_EVERY_S


def without_offer(begun: bytes, data: bytes) -> bytes:
    """`data` without an offer of HTTP/2 in its head, which Java's client sends with each request: the parser would not
    read the body behind it. The body stays as it is.

    Args:
        begun: the last bytes of the head that came before `data`.
    """
    head, end, rest = (begun + data).partition(b"\r\n\r\n")
    return (OFFER.sub(REFUSED_OFFER, head) + end + rest)[len(begun) :]


def head_fault(version: str, target: bytes, headers: Headers) -> ApiError | None:
    """The reason to refuse a head that the parser took; None when there is none. `headers` have lower-case names."""
    size = len(target)
    counts: dict[bytes, int] = {}
    for name, value in headers:
        size += len(name) + len(value) + 4
        counts[name] = counts[name] + 1 if name in counts else 1
    if size > MAX_HEAD_BYTES:
        return too_large()  # one that came in one piece was not counted on its way
    if version not in HTTP_VERSIONS:
        return malformed(f"HTTP/{version} is not supported; allowed: HTTP/1.0, HTTP/1.1")
    if not target.startswith(b"/") and target != b"*":
        return malformed("the request line must name a path that begins with '/'")
    if len(counts) < len(headers):
        for name in sorted(SINGLE_HEADERS & counts.keys()):
            if counts[name] > 1:
                return malformed(f"the header '{name.decode()}' is there {counts[name]} times; allowed: once")
    if version == "1.1" and b"host" not in counts:
        return malformed("the header 'host' is missing")
    if b"transfer-encoding" in counts:
        coding = next(value for name, value in headers if name == b"transfer-encoding").strip().lower()
        if coding != b"chunked" or version == "1.0":
            return malformed("the header 'transfer-encoding' must be 'chunked', in HTTP/1.1 only")
    return None


def too_large() -> ApiError:
    return ApiError(
        f"the request's headers are larger than the limit of {MAX_HEAD_BYTES} bytes", status=431, code="head_too_large"
    )


def malformed(message: str) -> ApiError:
    return ApiError(message, status=400, code="invalid_http")
