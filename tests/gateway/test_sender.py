"""Answers as the gateway writes them, beside uvicorn's own writing of the same messages."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from coe.gateway.http.protocol import Sender

DATE = (b"date", b"Fri, 27 Nov 2026 12:00:00 GMT")
JSON = (b"content-type", b"application/json")


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_open = True

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_open = False

    def is_closing(self) -> bool:
        return not self.is_open


def cycle_on(transport: Transport, *, method: str, keep_alive: bool) -> RequestResponseCycle:
    made: Any = RequestResponseCycle
    log = logging.getLogger("test")
    return made(
        scope={"type": "http", "method": method, "http_version": "1.1"},
        transport=transport,
        flow=FlowControl(transport),
        logger=log,
        access_logger=log,
        access_log=False,
        default_headers=[DATE],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )


async def answer(
    headers: list[tuple[bytes, bytes]], *bodies: bytes, method: str = "POST", keep_alive: bool = True, is_ours: bool
) -> tuple[Transport, RequestResponseCycle]:
    transport = Transport()
    cycle = cycle_on(transport, method=method, keep_alive=keep_alive)
    if is_ours:
        vars(cycle)["send"] = Sender(cycle)
    send: Any = cycle.send
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for body in bodies:
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
    return transport, cycle


@pytest.mark.parametrize(
    ("headers", "bodies", "options"),
    [
        ([JSON, (b"content-length", b"2")], [b"{}"], {}),
        ([JSON], [b"one", b"", b"two"], {}),
        ([JSON], [], {}),
        ([JSON, (b"content-length", b"2")], [b"{}"], {"method": "HEAD"}),
        ([JSON, (b"content-length", b"2")], [b"{}"], {"keep_alive": False}),
        ([JSON, (b"connection", b"close")], [b"x"], {}),
        ([(b"Content-Type", b"text/plain")], [b"x"], {}),
    ],
)
async def test_the_same_bytes_as_uvicorn(headers: Any, bodies: list[bytes], options: Any) -> None:
    theirs, _ = await answer(headers, *bodies, **options, is_ours=False)
    ours, cycle = await answer(headers, *bodies, **options, is_ours=True)
    assert b"".join(ours.written) == b"".join(theirs.written)
    assert (ours.is_open, cycle.response_complete) == (theirs.is_open, True)


async def test_head_and_body_are_one_packet_and_nothing_refers_to_the_cycle() -> None:
    ours, cycle = await answer([JSON, (b"content-length", b"2")], b"{}", is_ours=True)
    assert [each for each in ours.written if each] == [b"".join(ours.written)]
    assert "send" not in vars(cycle)


@pytest.mark.parametrize("headers", [[(b"x", b"a\r\nx-evil: b")], [(b"x", b"a\0")], [(b"a b", b"c")]])
async def test_a_header_that_is_no_line_is_refused(headers: Any) -> None:
    with pytest.raises(RuntimeError, match="Invalid HTTP header"):
        await answer(headers, is_ours=True)


@pytest.mark.parametrize("bodies", [[b"{}}"], [b"{"]])
async def test_a_body_of_another_length_is_refused(bodies: list[bytes]) -> None:
    with pytest.raises(RuntimeError):
        await answer([JSON, (b"content-length", b"2")], *bodies, is_ours=True)
