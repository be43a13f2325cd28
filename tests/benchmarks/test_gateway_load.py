"""The engine and the clients that measure gateways, against each other."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import gateway_load
from benchmarks.gateway_load import CHAT, LARGE, MANY, ONE, PACED, STREAM, Engine, Load, drive, requests_of
from benchmarks.gateway_page import middle
from benchmarks.gateway_subjects import NO_GATEWAY, Subject, running
from benchmarks.gateway_texts import MADE, described, made_texts, texts_file

TEXTS = made_texts()[:300]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("load", [MANY, LARGE, STREAM], ids=lambda load: load.name)
async def test_every_answer_and_frame_is_counted(port: int, load: Load) -> None:
    found = await drive(port, "auto", "key", load, 0.05, seed=0, texts=TEXTS)
    asked = len(found["latencies"])
    assert asked >= load.concurrency
    assert found["frames"] == found["expected"] == load.frames * asked
    assert len(found["firsts"]) == (asked if load.frames else 0)


async def test_frames_of_a_paced_stream_come_apart(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_load, "PACE_S", 0.002)
    found = await drive(port, "auto", "key", replace(PACED, concurrency=1), 0.0001, seed=0, texts=TEXTS)
    assert found["frames"] == PACED.frames
    assert len(found["gaps"]) > PACED.frames / 2


def test_no_two_requests_have_the_same_text() -> None:
    make = requests_of(ONE, "auto", "key", seed=7, texts=TEXTS)
    bodies = [make().partition(b"\r\n\r\n")[2] for _ in TEXTS]
    assert len(set(bodies)) == len(TEXTS)


def test_requests_are_the_prompts_of_the_file() -> None:
    make = requests_of(CHAT, "auto", "key", seed=1, texts=("a", "b", "c"))
    messages = json.loads(make().partition(b"\r\n\r\n")[2])["messages"]
    assert [message["content"] for message in messages] == ["b", "c", "a", "b", "c", "a", "b", "c", "a"]
    assert messages[-1]["role"] == "user"


def test_made_prompts_differ_in_more_than_a_number(tmp_path: Path) -> None:
    path = texts_file(None, tmp_path)
    texts = json.loads(path.read_bytes())
    assert len(set(texts)) == len(texts) == MADE
    assert len({word for text in texts for word in text.split()}) > 10_000
    assert described(path, is_given=False).startswith("50,000 distinct prompts made of halves")


def test_one_that_is_not_asked_whether_it_is_ready_has_no_such_time(tmp_path: Path) -> None:
    subject = Subject(NO_GATEWAY, (sys.executable, "-m", "benchmarks.gateway_load", "engine", "{port}"), "expert-0")
    with running(subject, min(os.sched_getaffinity(0)), tmp_path) as started:
        assert math.isnan(started.ready_s)
        assert started.answered_s > 0
        assert middle([started.ready_s]) == "none"
