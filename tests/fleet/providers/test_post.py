"""Requests to experts: their heads, and connections that serve a second one."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from yarl import URL

from coe.fleet.providers._post import Connections, Posts


async def head_of(headers: dict[str, str], *, keeps_alive: bool = True) -> list[str]:
    async with aiohttp.ClientSession() as session:
        own = {"content-type": "application/json", "accept-encoding": "identity"}
        posts = Posts(session, URL("http://one:two@[::1]:81/v1/chat"), own, keeps_alive=keeps_alive)
        return posts._head(headers, 7).decode().split("\r\n")


async def test_head_has_what_the_address_asks_for() -> None:
    line, *headers = await head_of({"x-request-id": "r"}, keeps_alive=False)
    assert line == "POST /v1/chat HTTP/1.1"
    assert set(headers) == {
        "",
        "host: [::1]:81",
        "authorization: Basic b25lOnR3bw==",
        "content-type: application/json",
        "accept-encoding: identity",
        "accept: */*",
        "connection: close",
        "content-length: 7",
        "x-request-id: r",
    } | {each for each in headers if each.startswith("user-agent: ")}


async def test_a_request_replaces_headers_of_all() -> None:
    headers = await head_of({"content-type": "text/plain"})
    assert [each for each in headers if each.startswith("content-type")] == ["content-type: text/plain"]


@pytest.mark.parametrize("value", ["a\r\nx-evil: b", "a\n b", "a\r b", "a\0b"])
async def test_a_header_is_one_line(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        await head_of({"traceparent": value})


@pytest.mark.parametrize(("size", "connections"), [(9, 1), (64 << 20, 2)])
async def test_an_answer_to_what_was_not_read_is_the_last_of_its_connection(size: int, connections: int) -> None:
    """The rest of the body would be read as the next request, or its answer as that of the next."""
    served: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                is_early = len(served) == 1 and size > 9
                if not is_early:
                    await reader.readexactly(int(head.rpartition(b"content-length:")[2]))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                if is_early:
                    await writer.wait_closed()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    async with server, aiohttp.ClientSession(connector=Connections()) as session:
        posts = Posts(session, url, {"content-type": "application/json"}, keeps_alive=True)
        for body in (b"x" * size, b"{}"):
            answer = await posts.send(body, {}, aiohttp.ClientTimeout(connect=9), 9)
            assert await answer.content.read() == b"{}"
        for writer in served:
            writer.transport.abort()
    assert len(served) == connections
