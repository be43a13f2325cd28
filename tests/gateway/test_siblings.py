"""What one process of a gateway sends to another."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from gateway.siblings import Siblings, socket_of


async def test_a_body_that_is_not_passed_on_is_not_announced_either() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async def no_more() -> dict[str, object]:
        raise AssertionError("nobody reads it")

    async def send(message: object) -> None:
        pass

    with tempfile.TemporaryDirectory(prefix="coe-", dir="/tmp") as folder:  # a short name, since it has a socket
        async with await asyncio.start_unix_server(answer, socket_of(Path(folder), "worker-1")):
            siblings = Siblings(Path(folder), "worker-2", ("worker-1",), "worker-1")
            for method in ("GET", "DELETE"):
                scope = {"method": method, "raw_path": b"/v1/files", "query_string": b"", "headers": HEADERS}
                await siblings.forward("worker-1", scope, no_more, send)
            await siblings.aclose()
    assert [b"200" in head for head in heads] == [False, False]
    assert all(b"authorization: Bearer x" in head for head in heads)


HEADERS = [(b"host", b"localhost"), (b"authorization", b"Bearer x"), (b"content-length", b"200")]
