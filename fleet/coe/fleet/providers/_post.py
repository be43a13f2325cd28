"""POST over aiohttp's connections and parser, without what its session does for other clients.

Connections, TLS, names, keep-alive, time limits of the socket and the reading of answers are aiohttp's. Its
`ClientSession.post` copies and checks headers anew for every request, prepares cookies and redirects, and starts a task
for the body: half of what a request to an expert took.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from yarl import URL

MAX_LINE_BYTES = 32 * 1024
"""Of a line of an answer's head."""

JOINED_BYTES = 64 * 1024
"""A body up to this size is sent with its head in one piece, so it is copied."""

MAX_INTERIM = 8
"""Heads such as `103 Early Hints` before the answer; servers send one or two."""

HEAD_PIECE_BYTES = 4096
"""The most that is parsed at once before the answer begins: interim heads are counted after each piece."""

SWITCHING, REQUEST_TIMEOUT = 101, 408


class InterimError(aiohttp.ClientError):
    """Too many interim heads came in place of an answer."""


class StaleError(aiohttp.ClientError):
    """A connection that had served another request broke before the answer to this one, or answered 408: it had been
    idle for too long."""


class OneAnswer(ResponseHandler):
    """A connection that gives one answer to each request, and is closed once it gave anything else.

    aiohttp keeps what a server sends unasked, and would give it to the next request.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._answer: aiohttp.StreamReader | None = EMPTY_PAYLOAD  # None: a request waits for its head
        self._interim = 0
        self.requests = 0
        self._readable = select.poll()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def is_connected(self) -> bool:
        """Returns True where it can serve another request: aiohttp's pool asks just before it takes a connection.

        What waits in the socket belongs to no request.
        """
        return super().is_connected() and not self._readable.poll(0)

    def set_response_params(self, **params: Any) -> None:
        """A request begins."""
        self._answer, self._interim = None, 0
        self.requests += 1
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Takes a head from the parser."""
        message, payload = data
        if self._answer is not None:
            self._end()
        elif message.code >= 200 or message.code == SWITCHING:
            self._answer = payload
            assert self.transport is not None
            if self.transport.get_write_buffer_size():  # it answers what it has not read
                self.force_close()
            super().feed_data(data, size)
        else:
            self._interim += 1
            if self._interim == MAX_INTERIM + 1:
                self.set_exception(InterimError())

    def data_received(self, data: bytes) -> None:
        if self._answer is None and len(data) > HEAD_PIECE_BYTES:
            self.data_received(data[:HEAD_PIECE_BYTES])
            if self._interim <= MAX_INTERIM:
                self.data_received(data[HEAD_PIECE_BYTES:])
            return
        if data and self._is_answered():
            self._end()
            return
        super().data_received(data)
        if self._is_answered() and self._has_more():
            self._end()

    def _has_more(self) -> bool:
        """Returns True where bytes behind the answer began another one."""
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except HttpProcessingError:
            return True

    def _is_answered(self) -> bool:
        return self._answer is not None and self._answer.is_eof()

    def _end(self) -> None:
        self.force_close()
        if self.transport is not None:
            self.transport.close()


class Connections(aiohttp.TCPConnector):
    """A pool of such connections."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        kind: type[ResponseHandler] = OneAnswer
        self._factory = partial(kind, self._loop)


class Answer(NamedTuple):
    """The head of an answer. Close it, unless its body was read to the end: then the connection is back in the pool."""

    status: int
    headers: Mapping[str, str]
    content: aiohttp.StreamReader
    connection: Connection

    def close(self) -> None:
        self.connection.close()


class Posts:
    """Requests to one address.

    Args:
        headers: of every request, by names in lower case.
        keeps_alive: a connection serves further requests.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str], *, keeps_alive: bool
    ) -> None:
        assert session.connector is not None
        self._connector = session.connector
        # What a connection is chosen by, and the headers that follow from the address.
        self._key = aiohttp.ClientRequest(
            "POST", url, headers=headers, loop=asyncio.get_running_loop(), session=session
        )
        self._fixed = {name.lower(): value for name, value in self._key.headers.items()}
        del self._fixed["content-length"]
        if not keeps_alive:
            self._fixed["connection"] = "close"
        self._start = f"POST {url.raw_path_qs} HTTP/1.1\r\n"
        self._usual = self._start + lines(self._fixed)

    async def send(
        self, body: bytes, headers: Mapping[str, str], connect: aiohttp.ClientTimeout, silence_s: float
    ) -> Answer:
        """Sends a request; returns once the head of its answer is here.

        Args:
            headers: of this request, by names in lower case; they replace those of every request.
            connect: the limit on connecting.
            silence_s: the limit on the time until the head of the answer.

        Raises:
            StaleError: a new connection may do better.
            aiohttp.ClientError: no connection, or no answer that is HTTP.
            TimeoutError: no answer in time.
        """
        head = self._head(headers, len(body))
        try:
            connection = await self._connector.connect(self._key, [], connect)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("the address cannot be reached in time") from error
        protocol = connection.protocol
        assert isinstance(protocol, OneAnswer)
        is_first = protocol.requests == 0
        try:
            answer = await answered(connection, head, body, silence_s)
            if answer.status == REQUEST_TIMEOUT and not is_first:
                raise aiohttp.ServerDisconnectedError
            return answer
        except BaseException as error:
            connection.close()
            is_broken = isinstance(error, aiohttp.ServerDisconnectedError | OSError)
            if is_broken and not is_first and not isinstance(error, TimeoutError):
                raise StaleError from error
            if isinstance(error, HttpProcessingError):
                raise aiohttp.ClientPayloadError("the head of the answer is not HTTP") from error
            if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientError | TimeoutError):
                raise aiohttp.ClientOSError(*error.args) from error
            raise

    def _head(self, headers: Mapping[str, str], size: int) -> bytes:
        begin = self._usual
        if not headers.keys().isdisjoint(self._fixed):
            begin = self._start + lines({name: value for name, value in self._fixed.items() if name not in headers})
        return f"{begin}{lines(headers)}content-length: {size}\r\n\r\n".encode()


def lines(headers: Mapping[str, str]) -> str:
    """Raises ValueError where a header would be more than a line."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers) or "\0" in text:
        raise ValueError("a header holds a line break or a NUL character")
    return text


async def answered(connection: Connection, head: bytes, body: bytes, silence_s: float) -> Answer:
    """Writes a request and reads the head of its answer, which must be whole in that time: neither interim heads nor
    parts of one prolong it. Raises ClientError, HttpProcessingError, OSError."""
    protocol = connection.protocol
    assert protocol is not None
    protocol.set_response_params(read_until_eof=True, max_line_size=MAX_LINE_BYTES, max_field_size=MAX_LINE_BYTES)
    transport = protocol.transport
    if transport is None or transport.is_closing():
        raise aiohttp.ServerDisconnectedError
    if len(body) <= JOINED_BYTES:
        transport.write(head + body)
    else:
        transport.writelines((head, body))
    timer = asyncio.get_running_loop().call_later(silence_s, protocol.set_exception, aiohttp.SocketTimeoutError())
    try:
        message, content = await protocol.read()
    finally:
        timer.cancel()
    content.on_eof(connection.release)
    return Answer(message.code, message.headers, content, connection)
