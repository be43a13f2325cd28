"""uvicorn's HTTP protocol with limits on the head of a request: its size and the time it may take."""

from __future__ import annotations

from asyncio import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.asgi import Receive, Scope, Send, send_error
from gateway.http_errors import ApiError

MAX_HEAD_BYTES = 32 * 1024
HEAD_TIMEOUT_S = 15.0


class LimitedProtocol(HttpToolsProtocol):
    """Answers 431 to a head that is too large and closes a connection whose head takes too long."""

    _head_bytes = 0
    _is_in_head = True
    _head_timer: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        was_in_head = self._is_in_head
        super().data_received(data)
        if was_in_head and self._is_in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._is_in_head:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._is_in_head, self._head_bytes = False, 0
        # A head that came in one piece was not counted on its way.
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            self.app = refuse_head
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._is_in_head, self._head_bytes = True, 0
        self._stop_timer()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse_head(self) -> None:
        body = too_large().body
        head = (
            "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def too_large() -> ApiError:
    return ApiError(
        f"the request's headers are larger than the limit of {MAX_HEAD_BYTES} bytes", status=431, code="head_too_large"
    )


async def refuse_head(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of a connection whose head was too large."""
    await send_error(send, too_large(), {"connection": "close"})
