"""The engine and the clients that measure gateways, against each other."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import gateway_load
from benchmarks.gateway_load import LARGE, MANY, ONE, PACED, STREAM, Engine, Load, drive, requests_of
from benchmarks.gateway_page import middle
from benchmarks.gateway_subjects import NO_GATEWAY, Subject, running


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


def test_one_that_is_not_asked_whether_it_is_ready_has_no_such_time(tmp_path: Path) -> None:
    subject = Subject(NO_GATEWAY, (sys.executable, "-m", "benchmarks.gateway_load", "engine", "{port}"), "expert-0")
    with running(subject, min(os.sched_getaffinity(0)), tmp_path) as started:
        assert math.isnan(started.ready_s)
        assert started.answered_s > 0
        assert middle([started.ready_s]) == "none"
