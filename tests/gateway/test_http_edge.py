"""Requests as bytes: what is not quite HTTP/1.1 is refused in OpenAI's shape, and connections are bounded."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from coe.gateway.http.protocol import MAX_HEAD_BYTES, FullNotice, without_offer
from tests.gateway.running import Running, faulty, running
from tests.waiting import DEADLINE_S

BODY = b'{"model":"auto","messages":[{"role":"user","content":"red"}]}'
CHUNKED = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n"


def request(*headers: str, line: str = "POST /v1/chat/completions HTTP/1.1", host: str = "localhost") -> bytes:
    return "\r\n".join((line, f"host: {host}", *headers, "", "")).encode("latin-1")


WITH_LENGTH = f"content-length: {len(BODY)}"
KEY = "canary-7f3a9c51e2b84d06"

REFUSED = {
    "two keys": request(WITH_LENGTH, "authorization: Bearer a", "Authorization: Bearer b") + BODY,
    "two keys of Anthropic's clients": request(WITH_LENGTH, "x-api-key: a", "X-Api-Key: b") + BODY,
    "the same key twice": request(WITH_LENGTH, "authorization: Bearer a", "authorization: Bearer a") + BODY,
    "two hosts": request(WITH_LENGTH, "host: localhost") + BODY,
    "no host": b"POST /v1/chat/completions HTTP/1.1\r\n" + WITH_LENGTH.encode() + b"\r\n\r\n" + BODY,
    "two lengths": request(WITH_LENGTH, WITH_LENGTH) + BODY,
    "two kinds of body": request(WITH_LENGTH, "content-type: application/json", "content-type: text/plain") + BODY,
    "two origins": request(WITH_LENGTH, "origin: http://localhost", "origin: http://localhost") + BODY,
    "two sessions": request(WITH_LENGTH, "x-session-id: a", "x-session-id: b") + BODY,
    "length and chunked": request(WITH_LENGTH, "transfer-encoding: chunked") + CHUNKED + b"\r\n",
    "identity, chunked": request("transfer-encoding: identity, chunked") + CHUNKED + b"\r\n",
    "identity, then chunked": request("transfer-encoding: identity", "transfer-encoding: chunked") + CHUNKED + b"\r\n",
    "chunked twice": request("transfer-encoding: chunked", "transfer-encoding: chunked") + CHUNKED + b"\r\n",
    "gzip, chunked": request("transfer-encoding: gzip, chunked") + CHUNKED + b"\r\n",
    "identity": request("transfer-encoding: identity", WITH_LENGTH) + BODY,
    "another coding": request("transfer-encoding: xchunked") + CHUNKED + b"\r\n",
    "chunked in 1.0": request("transfer-encoding: chunked", line="POST /v1/chat/completions HTTP/1.0") + CHUNKED,
    "0.9": b"GET /healthz\r\n\r\n",
    "0.9 by number": request(line="GET /healthz HTTP/0.9"),
    "2.0": request(line="GET /healthz HTTP/2.0"),
    "preface of 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another host's address": request(line="GET http://evil.example/healthz HTTP/1.1"),
    "a tunnel": request(line="CONNECT localhost:443 HTTP/1.1"),
    "another protocol, not offered as usual": request(WITH_LENGTH, "connection: UPGRADE", "UPGRADE: h2c") + BODY,
    "no method": b"NONSENSE\r\n\r\n",
    "bytes": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a header without a name": b"GET /healthz HTTP/1.1\r\n: x\r\n\r\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-a: b\r\n c\r\n\r\n",
    "a space before the colon": b"GET /healthz HTTP/1.1\r\nhost : localhost\r\n\r\n",
    "a length that is not a number": request("content-length: +5") + b"hello",
    "a chunk that is not a number": request("transfer-encoding: chunked") + b"zz\r\n",
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED.keys())
async def test_what_two_readers_could_read_differently_is_refused(gateway: Running, sent: bytes) -> None:
    head, _, body = (await answer_to(gateway, sent)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), head
    assert b"content-type: application/json" in head
    error = json.loads(body)["error"]
    assert (error["type"], set(error)) == ("invalid_request_error", {"message", "type", "param", "code"})
    assert gateway.log.records == []


@pytest.mark.parametrize(
    "sent",
    [
        request(WITH_LENGTH, "connection: close") + BODY,
        request("transfer-encoding: chunked", "connection: close") + CHUNKED + b"\r\n",
        request("Transfer-Encoding: Chunked", "connection: close") + CHUNKED + b"\r\n",
        request(
            WITH_LENGTH, "accept: a/b", "accept: c/d", "x-forwarded-for: a", "x-forwarded-for: b", "connection: close"
        )
        + BODY,
        request(WITH_LENGTH, line="POST /v1/chat/completions HTTP/1.0") + BODY,
        request(WITH_LENGTH, "Connection: Upgrade, HTTP2-Settings, close", "Upgrade: h2c", "HTTP2-Settings: AAEA")
        + BODY,
    ],
)
async def test_what_is_plain_http_is_answered(gateway: Running, sent: bytes) -> None:
    assert (await answer_to(gateway, sent)).startswith(b"HTTP/1.1 200 ")


OFFERED = request(WITH_LENGTH, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEA") + BODY


async def test_an_offer_of_http_2_is_not_taken_in_any_request_of_a_connection(gateway: Running) -> None:
    sent = OFFERED + OFFERED.replace(b"Settings\r\n", b"Settings, close\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    writer.write(OFFERED)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(sent[len(OFFERED) :])
    assert b"HTTP/1.1 200 " in await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    assert len(gateway.log.records) == 2


@pytest.mark.parametrize("size", [1, 7, len(OFFERED) - len(BODY) - 1])
def test_an_offer_in_pieces_is_taken_out_and_what_follows_the_head_is_left(size: int) -> None:
    sent = OFFERED + b"\r\nupgrade: h2c\r\n"
    begun, read = b"", b""
    for at in range(0, len(sent), size):
        piece = without_offer(begun, sent[at : at + size]) if b"\r\n\r\n" not in read else sent[at : at + size]
        read, begun = read + piece, (begun + piece)[-8:]
    head, _, rest = read.partition(b"\r\n\r\n")
    assert b"\r\nupgrade:" not in head.lower()
    assert rest == BODY + b"\r\nupgrade: h2c\r\n"


async def test_a_stream_in_http_1_0_has_no_chunks() -> None:
    body = BODY[:-1] + b',"stream":true}'
    async with running() as gateway:
        sent = request(f"content-length: {len(body)}", line="POST /v1/chat/completions HTTP/1.0") + body
        head, _, answer = (await answer_to(gateway, sent)).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head
    assert (answer[:6], answer[-16:]) == (b"data: ", b"\n\ndata: [DONE]\n\n")


async def test_what_follows_a_chunked_body_is_no_header() -> None:
    """Fields after the last chunk come too late for every check, so a key there opens nothing."""
    async with running(keys=[KEY]) as gateway:
        sent = request("transfer-encoding: chunked", "connection: close") + CHUNKED
        assert (await answer_to(gateway, sent + f"authorization: Bearer {KEY}\r\n\r\n".encode())).startswith(
            b"HTTP/1.1 401 "
        )
        head = request("transfer-encoding: chunked", "connection: close", f"authorization: Bearer {KEY}")
        assert (await answer_to(gateway, head + CHUNKED + b"authorization: Bearer other\r\n\r\n")).startswith(
            b"HTTP/1.1 200 "
        )


@pytest.mark.parametrize("tail", [b"x: " + b"y" * 4096, b"x: y\r\n" * 700], ids=["one field", "many fields"])
async def test_fields_after_a_body_without_end_are_cut_off(gateway: Running, tail: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    writer.write(request("transfer-encoding: chunked") + CHUNKED)
    with pytest.raises(ConnectionError):
        await send_until_closed(reader, writer, tail, 64 * MAX_HEAD_BYTES)
    writer.close()


async def send_until_closed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes, max_bytes: int
) -> None:
    """Raises ConnectionError once the other end has closed; TimeoutError when it takes `max_bytes` and stays open."""
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(max_bytes // len(piece)):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        while await reader.read(65536):
            pass
    raise ConnectionError("closed in order")


async def test_garbage_behind_a_running_stream_is_not_answered_inside_it() -> None:
    async with faulty("paced") as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
        body = BODY[:-1] + b',"stream":true}'
        writer.write(request(f"content-length: {len(body)}") + body)
        received = await asyncio.wait_for(reader.readuntil(b"data: "), DEADLINE_S)
        writer.write(b"\x00\x01 garbage\r\n\r\n")
        received += await asyncio.wait_for(reader.read(), DEADLINE_S)
        writer.close()
    assert received.count(b"HTTP/1.1 ") == 1


ASKED = request(line="GET /healthz HTTP/1.1")


@pytest.mark.parametrize("before", [b"", ASKED], ids=["first", "later"])
async def test_a_head_that_does_not_end_is_not_waited_for(
    gateway: Running, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.gateway.http.protocol.HEAD_TIMEOUT_S", 0.2)
    assert (await answer_to(gateway, before + ASKED[:-2])).count(b"HTTP/1.1 200 ") == len(before[:1])


async def test_a_refused_body_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.gateway.http.protocol.LINGER_S", 0.05)
    async with running(max_body_bytes=2000) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
        writer.write(request("content-length: 3000") + b"x")
        received = await asyncio.wait_for(reader.read(), DEADLINE_S)  # until the gateway closes
        writer.close()
    assert received.startswith(b"HTTP/1.1 413 ")


async def test_a_new_connection_takes_the_place_of_an_idle_one() -> None:
    async with running(max_connections=3) as gateway:
        idle = [await asyncio.open_connection("127.0.0.1", gateway.gateway.port) for _ in range(3)]
        assert (await answer_to(gateway, request("connection: close") + b"")).startswith(b"HTTP/1.1 400 ")
        for _ in range(20):
            answer = await answer_to(gateway, request("connection: close", line="GET /healthz HTTP/1.1"))
            assert answer.startswith(b"HTTP/1.1 200 ")
        assert not await asyncio.wait_for(idle[0][0].read(), DEADLINE_S)  # the one that was idle longest
        for _, writer in idle:
            writer.close()


async def test_with_every_connection_in_work_another_is_refused_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async with faulty("paced", max_connections=2) as (gateway, upstream):
        held = [await gateway.chat("red", stream=True).__aenter__() for _ in range(2)]
        for _ in range(3):
            refused = await answer_to(gateway, b"")
            assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in refused
        assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["code"] == "overloaded"
        upstream.gate.set()
        for answer in held:
            assert (await answer.read()).endswith(b"[DONE]\n\n")
        async with gateway.chat("green") as answer:
            assert answer.status == 200
        async with gateway.client.get(f"{gateway.root}/metrics") as answer:
            assert "coe_connections_over_limit_total 3.0" in await answer.text()
    assert caplog.text.count("there are 2 connections, as many as gateway.max_connections allows") == 1


def test_that_there_are_too_many_connections_is_said_again_with_how_many(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [5.0]
    monkeypatch.setattr("coe.gateway.http.protocol.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    on_full = FullNotice(2, lambda: None)
    for now_s[0] in (5.0, 6.0, 64.9, 65.0, 66.0):
        on_full()
    assert [record.getMessage().split()[-2] for record in caplog.records] == ["1", "3"]


async def answer_to(gateway: Running, sent: bytes) -> bytes:
    """All bytes that come until the gateway closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), DEADLINE_S)
    finally:
        writer.close()
