"""Checks of requests that are too large or too many, numbered as in the project's list of checks."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.running import Running, faulty, running
from tests.waiting import DEADLINE_S, until


async def test_check_16_body_limit() -> None:
    async with running(max_body_bytes=2000) as gateway:
        host, port = "127.0.0.1", gateway.gateway.port
        reader, writer = await asyncio.open_connection(host, port)
        # Announced as far too large: refused though no byte of the body is sent.
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n")
        head = await asyncio.wait_for(reader.read(), DEADLINE_S)
        assert head.startswith(b"HTTP/1.1 413")
        assert b"body_too_large" in head
        writer.close()
        async with gateway.chat("x" * 3000) as answer:
            assert answer.status == 413
        async with gateway.client.post(f"{gateway.gateway.url}/chat/completions", data=pieces(300)) as answer:
            assert answer.status == 413
        async with gateway.client.post(f"{gateway.gateway.url}/route", json={"text": "x" * 3000}) as answer:
            assert answer.status == 413


@pytest.mark.parametrize("sent", [b"", b"{"])
async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr("coe.gateway.http.asgi.BODY_TIMEOUT_S", 0.1)
    async with running() as gateway:
        for path in ("chat/completions", "feedback"):
            head = f"POST /v1/{path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n".encode()
            answer = await raw(gateway, head + sent)
            assert answer.startswith(b"HTTP/1.1 408"), path
            assert b"request_timeout" in answer


async def test_check_17_head_limit(gateway: Running) -> None:
    for name, value in (("x-large", "x" * 40_000), ("x-huge", "x" * 400_000)):
        head = f"GET /healthz HTTP/1.1\r\nhost: localhost\r\n{name}: {value}\r\n\r\n".encode()
        assert (await raw(gateway, head)).startswith(b"HTTP/1.1 431")
    assert (await raw(gateway, b"NONSENSE\r\n\r\n")).startswith(b"HTTP/1.1 400")
    assert (await raw(gateway, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).startswith(
        b"HTTP/1.1 200"
    )


async def raw(gateway: Running, request: bytes) -> bytes:
    """The server's bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    try:
        writer.write(request)
        received = b""
        while piece := await asyncio.wait_for(reader.read(65536), DEADLINE_S):
            received += piece
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    return received


async def pieces(count: int):
    for _ in range(count):
        yield b"x" * 10


async def test_check_19_excess_is_refused_at_once() -> None:
    async with faulty("paced", max_concurrency=2) as (gateway, upstream):
        held = [await gateway.chat("red", stream=True).__aenter__() for _ in range(2)]
        queued = asyncio.ensure_future(gateway.chat("red", stream=True).__aenter__())
        await until(lambda: len(gateway.parts.concurrency._waiting) == 1)
        async with gateway.chat("red") as refused:
            body = await refused.json()
        assert (refused.status, refused.headers["retry-after"], body["error"]["code"]) == (429, "1", "overloaded")
        assert "x-coe-decision-id" not in refused.headers  # it has no row to ask for
        assert gateway.parts.concurrency.running == 2, "it waited for those that are held"
        upstream.gate.set()
        for answer in [*held, await queued]:
            assert (await answer.read()).endswith(b"[DONE]\n\n")
        assert gateway.parts.concurrency.running == 0
