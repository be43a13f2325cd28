"""Bodies and answers that take long to read are read beside the event loop, which answers others meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from coe.base.json_text import from_json, to_json
from coe.fleet.calls.backend import BackendRequest, BackendResponse, Unconnected, reply_json
from coe.fleet.calls.chat_completions import completion
from coe.gateway.console.app import Console
from coe.gateway.endpoints.fastapi_app import create_rest
from coe.gateway.experts import answer_reader
from coe.gateway.http import asgi
from coe.gateway.http.asgi import LARGE_BYTES, MANY_VALUES, Application
from coe.gateway.parts import Parts
from tests.gateway.running import echoes, running
from tests.waiting import DEADLINE_S

LARGE = "red " * (LARGE_BYTES // 4)
NOT_LARGE = "r" * (LARGE_BYTES // 2)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"model": "auto", "messages": [{"role": "user", "content": LARGE}]}),
        ("chat/completions", {"model": "auto", "messages": [], "metadata": {"many": [0] * MANY_VALUES}}),
        ("route", {"text": LARGE}),
        ("feedback", {"decision_id": "d", "kind": "thumb", "original": LARGE}),
    ],
)
async def test_others_are_answered_while_a_large_body_is_read(
    monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    began, may_end = threading.Event(), threading.Event()

    def held(raw: bytes, **options: Any) -> Any:
        if len(raw) > MANY_VALUES:
            began.set()
            assert may_end.wait(DEADLINE_S)
        return from_json(raw, **options)

    monkeypatch.setattr(asgi, "from_json", held)
    async with running() as gateway:
        sent = asyncio.ensure_future(gateway.client.post(f"{gateway.gateway.url}/{path}", json=body))
        try:
            assert await asyncio.to_thread(began.wait, DEADLINE_S)
            async with gateway.client.get(f"{gateway.root}/healthz") as answer:
                assert answer.status == 200
            async with gateway.chat("red") as answer:
                assert answer.status == 200
            assert not sent.done()
        finally:
            may_end.set()
        assert (await sent).status in (200, 400)


async def test_endpoints_are_loaded_once_while_others_are_answered_and_again_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[str] = []
    began, may_end = threading.Event(), threading.Event()

    def held(parts: Parts) -> Application:
        threads.append(threading.current_thread().name)
        if len(threads) == 1:
            raise OSError("too many open files")
        began.set()
        assert may_end.wait(DEADLINE_S)
        return create_rest(parts)

    monkeypatch.setattr("coe.gateway.app.load_rest", held)
    async with running() as gateway:

        async def status_of_experts() -> int:
            async with gateway.client.get(f"{gateway.gateway.url}/experts") as answer:
                return answer.status

        assert await status_of_experts() == 500
        waiting = [asyncio.create_task(status_of_experts()) for _ in range(2)]
        assert await asyncio.to_thread(began.wait, DEADLINE_S)
        async with gateway.chat("red") as answer:
            assert answer.status == 200
        assert not any(each.done() for each in waiting)
        may_end.set()
        assert await asyncio.gather(*waiting) == [200, 200]
    assert len(threads) == 2
    assert threading.main_thread().name not in threads


async def test_pages_are_loaded_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    class Noted(Console):
        def __init__(self, *parts: Any) -> None:
            threads.append(threading.current_thread().name)
            super().__init__(*parts)

    monkeypatch.setattr("coe.gateway.console.app.Console", Noted)
    async with running() as gateway:
        for _ in range(2):
            async with gateway.client.get(f"{gateway.root}/console") as answer:
                assert answer.status == 200
    assert len(threads) == 1
    assert threads != [threading.main_thread().name]


async def test_a_large_answer_is_read_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    said = iter(["short", NOT_LARGE, LARGE])

    class Expert(Unconnected):
        async def send(self, request: BackendRequest) -> BackendResponse:
            return BackendResponse(200, pieces(to_json(completion("m", next(said), request))))

    async def pieces(body: bytes) -> AsyncGenerator[bytes, None]:
        yield body

    def noted(raw: bytes) -> Any:
        threads.append(threading.current_thread().name)
        return reply_json(raw)

    monkeypatch.setattr(answer_reader, "reply_json", noted)
    async with running(echoes(ruby=Expert())) as gateway:
        for _ in range(3):
            async with gateway.chat("red") as answer:
                assert answer.status == 200
    assert threads == [*[threading.main_thread().name] * 2, "coe-json_0"]
