"""The heads of requests to experts."""

from __future__ import annotations

import aiohttp
import pytest
from yarl import URL

from fleet.wires._post import Posts


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
