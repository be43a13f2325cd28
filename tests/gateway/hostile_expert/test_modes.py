"""Clients of an expert that does everything wrong get a right answer or an error, and never another's answer."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from typing import Any

import pytest

from coe.fleet.providers import litellm, vllm
from coe.fleet.providers._post import MAX_INTERIM
from coe.gateway.experts.answer_reader import StreamReader
from tests.gateway.hostile_expert.expert import (
    EVENTS,
    HEAD,
    JSON,
    STRAY,
    Asked,
    HostileExpert,
    Mode,
    chunked,
    event,
    hostile_expert,
    sized,
    stray,
)
from tests.gateway.running import Running, echoes, running
from tests.waiting import DEADLINE_S

SILENCE_S = 0.2
FLOOD = 2_000_000
INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"

RIGHT: dict[str, Mode] = {
    "whole": lambda asked: (asked.answer,),
    "stray in the same read": lambda asked: (asked.answer + stray(asked),),
    "stray behind a later read": lambda asked: (asked.answer[:90], asked.answer[90:] + stray(asked)),
    "half a stray": lambda asked: (asked.answer + stray(asked)[:25],),
    "stray behind chunks": lambda asked: (chunked(asked.body, kind=asked.kind) + stray(asked),),
    "408 behind": lambda asked: (asked.answer, b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n"),
    "trailer": lambda asked: (chunked(asked.body, kind=asked.kind, trailer=b"x-sum: 9\r\n"),),
    "line break behind": lambda asked: (asked.answer + b"\r\n",),
    "interim": lambda asked: (INTERIM * MAX_INTERIM + asked.answer,),
    "byte by byte": lambda asked: tuple(bytes([each]) for each in asked.answer),
    "chunks of a byte": lambda asked: (chunked(*(bytes([each]) for each in asked.body), kind=asked.kind),),
    "CRLF": lambda asked: (sized(asked.body.replace(b"\n", b"\r\n"), asked.kind),),
    "comments": lambda asked: (sized(b": ping\n\n" * asked.is_stream + asked.body, asked.kind),),
}
"""Modes whose answer is whole, whatever else comes."""

FAULTS: dict[str, Mode] = {
    "hang": lambda asked: (),
    "hang behind 100": lambda asked: (b"HTTP/1.1 100 Continue\r\n\r\n",),
    "hang behind 103": lambda asked: (INTERIM,),
    "hang in the head": lambda asked: (asked.answer[:30],),
    "hang in the body": lambda asked: (asked.answer[:-40],),
    "interim flood": lambda asked: (INTERIM * 20_000,),
    "switching": lambda asked: (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + asked.answer,),
    "reset": lambda asked: (None,),
    "reset in the body": lambda asked: (asked.answer[:-40], None),
    "no HTTP": lambda asked: (b"SSH-2.0-OpenSSH_9.6\r\n",),
    "junk behind": lambda asked: (HEAD % JSON + b"content-length: 2\r\n\r\n{}xyzzy",),
    "two lengths": lambda asked: (HEAD % JSON + b"content-length: 5\r\ncontent-length: 9\r\n\r\n" + asked.body,),
    "no length": lambda asked: (HEAD % JSON + b"content-length: x\r\n\r\n" + asked.body,),
    "forbidden trailer": lambda asked: (chunked(asked.body, kind=asked.kind, trailer=b"content-length: 9\r\n"),),
    "broken chunk": lambda asked: (HEAD % asked.kind + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",),
    "gzip that is none": lambda asked: (HEAD % asked.kind + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",),
    "long head": lambda asked: (HEAD % JSON + b"x: " + b"a" * 100_000 + b"\r\n\r\n",),
    "many headers": lambda asked: (HEAD % JSON + b"x: a\r\n" * 10_000 + b"\r\n",),
    "empty": lambda asked: (sized(b"", asked.kind),),
    "no JSON": lambda asked: (sized(b"{", JSON),),
    "deep": lambda asked: (sized(b'{"choices":' + b"[" * 50_000, JSON),),
    "HTML": lambda asked: (sized(b"<html>log in</html>", b"text/html"),),
    "redirect": lambda asked: (b"HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",),
    "status 999": lambda asked: (b"HTTP/1.1 999 x\r\ncontent-length: 0\r\n\r\n",),
    "error": lambda asked: (b"HTTP/1.1 500 x\r\ncontent-length: 4\r\n\r\noops",),
    "endless line": lambda asked: (HEAD % asked.kind + b"content-length: 99999999\r\n\r\ndata: " + b"x" * (9 << 20),),
    "event of an error": lambda asked: (sized(b'data: {"error":{"message":"died"}}\n\n', EVENTS),),
    "garbage in a stream": lambda asked: (sized(event("a") + b"data: \xff\n\n<html>\n", EVENTS),),
    "cut stream": lambda asked: (sized(event("a"), EVENTS),),
}
"""Modes without a whole answer."""

FLOODS: dict[str, Mode] = {
    "line ends": lambda asked: (sized(event("a") + b"\n" * FLOOD + asked.body, EVENTS),),
    "comments": lambda asked: (sized(event("a") + b":\n" * (FLOOD // 2) + asked.body, EVENTS),),
    "small events": lambda asked: (sized(event("a") + b"data: {}\n\n" * (FLOOD // 20) + asked.body, EVENTS),),
    "many choices": lambda asked: (sized(event("a") + event("", choices=[{}] * (FLOOD // 10)) + asked.body, EVENTS),),
    "one line": lambda asked: (sized(event("x" * FLOOD) + asked.body, EVENTS),),
}

PATHS = {"chat": "chat/completions", "messages": "messages", "responses": "responses"}


def body_of(surface: str, text: str, is_stream: bool) -> dict[str, Any]:
    message = [{"role": "user", "content": text}]
    asked = {"input": message} if surface == "responses" else {"messages": message, "max_tokens": 9}
    return {"model": "ruby", "stream": is_stream, **asked}


async def ask(gateway: Running, surface: str, text: str, is_stream: bool) -> tuple[int, bytes]:
    """The status, 0 where the connection broke off, and what came."""
    url, received = f"{gateway.gateway.url}/{PATHS[surface]}", b""
    async with gateway.client.post(url, json=body_of(surface, text, is_stream)) as answer:
        try:
            async for piece in answer.content.iter_any():
                received += piece
        except Exception:  # noqa: BLE001  # a cut stream, in whichever way
            return 0, received
    return answer.status, received


def is_right(surface: str, status: int, received: bytes, text: str) -> bool:
    return status == 200 and Asked(text, False).said.encode() in received and b'"error":{' not in received


def is_error(surface: str, status: int, received: bytes) -> bool:
    """Returns True for an error as it is documented: of an answer, or the last event of a stream, or a broken one."""
    if status == 0:
        return True
    if status == 200:
        return b'"error":{' in received or b'"error": {' in received or b"event: error" in received
    error = json.loads(received)["error"]
    return status >= 400 and bool(error["message"]) and "type" in error


def provider_of(kind: str, expert: HostileExpert, limit_s: float = 1.0) -> Any:
    if kind == "openai":
        return vllm.build(vllm.Options(url=expert.url, served_model="m", timeout_s=SILENCE_S))
    return litellm.build(litellm.Options(model="openai/m", api_key="k", api_base=expert.url, timeout_s=limit_s))


NEEDS_LITELLM = [
    pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="the 'providers' extra is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning"),
    pytest.mark.slow,
]
PROVIDERS = ["openai", pytest.param("litellm", marks=NEEDS_LITELLM)]


@pytest.mark.parametrize("kind", PROVIDERS)
@pytest.mark.parametrize("surface", PATHS)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_is_right_or_an_error_and_the_next_one_is_right(
    kind: str, surface: str, is_stream: bool
) -> None:
    wrong = []
    async with hostile_expert() as expert, running(echoes(ruby=provider_of(kind, expert))) as gateway:
        gateway.stop_clock()
        await ask(gateway, surface, "first", is_stream)  # what a library loads then counts as silence
        for name, mode in {**RIGHT, **FAULTS}.items():
            for number in range(2):  # the second on a connection that is kept, if any is
                expert.mode = mode
                text = f"{name} {number}"
                async with asyncio.timeout(DEADLINE_S):
                    status, received = await ask(gateway, surface, text, is_stream)
                right = is_right(surface, status, received, text)
                if STRAY.encode() in received or not (
                    right or (name in FAULTS and is_error(surface, status, received))
                ):
                    wrong.append((name, number, status, received[:300]))
                gateway.parts.pool.alive = frozenset(gateway.parts.pool.names)
                gateway.stop_clock(later_s=1e4)  # breakers close: they are not what is tested
            expert.mode = RIGHT["whole"]
            status, received = await ask(gateway, surface, f"after {name}", is_stream)
            if not is_right(surface, status, received, f"after {name}"):
                wrong.append((f"after {name}", 0, status, received[:300]))
    assert not wrong, [each[:2] for each in wrong]


@pytest.mark.parametrize("kind", PROVIDERS)
@pytest.mark.parametrize("sent", [Asked(STRAY, False).answer, b"HTTP/1.1 2", b"\r\n", b"HTTP/1.1 408 x\r\n\r\n"])
async def test_what_comes_unasked_is_no_answer(kind: str, sent: bytes) -> None:
    async with hostile_expert() as expert, running(echoes(ruby=provider_of(kind, expert, DEADLINE_S))) as gateway:
        for number in range(4):
            status, received = await ask(gateway, "chat", f"number {number}", False)
            assert is_right("chat", status, received, f"number {number}"), received
            expert.send_unasked(sent)


@pytest.mark.parametrize("mode", FLOODS)
@pytest.mark.parametrize(
    ("surface", "kind"), [*((each, "openai") for each in PATHS), pytest.param("chat", "litellm", marks=NEEDS_LITELLM)]
)
async def test_others_have_their_turn_while_a_stream_floods(
    mode: str, surface: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more is read along in a turn of the event loop than a piece, or than one line that is larger."""
    turns, fed = 0, [0]
    over = False

    async def turn() -> None:
        nonlocal turns
        while not over:
            turns += 1
            fed.append(0)
            await asyncio.sleep(0)

    def counted(reader: Any, method: str) -> None:
        read = getattr(reader, method)

        def count(self: Any, lines: Any) -> Any:
            fed[-1] += lines.count(b"\n") if isinstance(lines, bytes) else 1
            return read(self, lines)

        monkeypatch.setattr(reader, method, count)

    counted(StreamReader, "feed")
    if kind == "litellm":
        counted(importlib.import_module("openai._streaming").SSEDecoder, "decode")  # a line
    async with hostile_expert() as expert, running(echoes(ruby=provider_of(kind, expert, DEADLINE_S))) as gateway:
        await ask(gateway, surface, "first", True)
        expert.mode = FLOODS[mode]
        turning = asyncio.create_task(turn())
        status, received = await ask(gateway, surface, "a", True)
        over = True
        await turning
        assert is_right(surface, status, received, "a") or is_error(surface, status, received)
        expert.mode = RIGHT["whole"]
        gateway.parts.pool.alive = frozenset(gateway.parts.pool.names)
        status, received = await ask(gateway, surface, "after", False)
        assert is_right(surface, status, received, "after")
    assert max(fed) <= 2 * (litellm.PIECE_BYTES if kind == "litellm" else vllm.PIECE_BYTES)
