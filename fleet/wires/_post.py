"""POST over aiohttp's connections and parser, without what its session does for other clients.

Connections, TLS, names, keep-alive, time limits of the socket and the reading of answers are aiohttp's. Its
`ClientSession.post` copies and checks headers anew for every request, prepares cookies and redirects, and starts a task
for the body: half of what a request to an expert took.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from yarl import URL

MAX_LINE_BYTES = 32 * 1024
"""Of a line of an answer's head."""

JOINED_BYTES = 64 * 1024
"""A body up to this size is sent with its head in one piece, so it is copied."""

SWITCHING = 101


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

    async def send(self, body: bytes, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout) -> Answer:
        """Sends a request; returns once the head of its answer is here.

        Args:
            headers: of this request, by names in lower case; they replace those of every request.
            timeout: its limits on connecting and on silence.

        Raises:
            aiohttp.ClientError: no connection, or no answer that is HTTP.
            TimeoutError: no answer in time.
        """
        head = self._head(headers, len(body))
        try:
            connection = await self._connector.connect(self._key, [], timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("the address cannot be reached in time") from error
        try:
            return await answered(connection, head, body, timeout.sock_read)
        except BaseException as error:
            connection.close()
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


async def answered(connection: Connection, head: bytes, body: bytes, silence_s: float | None) -> Answer:
    """Writes a request and reads the head of its answer. Raises ClientError, HttpProcessingError, OSError."""
    protocol = connection.protocol
    assert protocol is not None
    protocol.set_response_params(
        read_until_eof=True, read_timeout=silence_s, max_line_size=MAX_LINE_BYTES, max_field_size=MAX_LINE_BYTES
    )
    transport = protocol.transport
    if transport is None or transport.is_closing():
        raise aiohttp.ServerDisconnectedError
    if len(body) <= JOINED_BYTES:
        transport.write(head + body)
    else:
        transport.writelines((head, body))
    protocol.start_timeout()
    while True:
        message, content = await protocol.read()
        if message.code >= 200 or message.code == SWITCHING:
            content.on_eof(connection.release)
            return Answer(message.code, message.headers, content, connection)
