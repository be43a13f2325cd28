"""The engine and the clients that measure gateways, against each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from benchmarks import gateway_load
from benchmarks.gateway_load import LARGE, MANY, ONE, PACED, STREAM, Engine, Load, drive, requests_of


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("load", [MANY, LARGE, STREAM], ids=lambda load: load.name)
async def test_every_answer_and_frame_is_counted(port: int, load: Load) -> None:
    found = await drive(port, "auto", "key", load, 0.05, seed=0)
    asked = len(found["latencies"])
    assert asked >= load.concurrency
    assert found["frames"] == found["expected"] == load.frames * asked
    assert len(found["firsts"]) == (asked if load.frames else 0)


async def test_frames_of_a_paced_stream_come_apart(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_load, "PACE_S", 0.002)
    found = await drive(port, "auto", "key", replace(PACED, concurrency=1), 0.0001, seed=0)
    assert found["frames"] == PACED.frames
    assert len(found["gaps"]) > PACED.frames / 2


def test_no_two_requests_have_the_same_text() -> None:
    make = requests_of(ONE, "auto", "key", seed=7)
    bodies = [make().partition(b"\r\n\r\n")[2] for _ in range(200)]
    assert len(set(bodies)) == 200
