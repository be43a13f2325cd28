"""The raw OpenAI API against a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import BackendError
from coe.fleet.calls.backend import BackendRequest, WholeLines
from coe.fleet.providers.vllm import ID_FIELD, MODEL_FIELD, Options, build, literal
from tests.gateway.fault_upstream import ANSWER, STREAM, fault_upstream
from tests.waiting import DEADLINE_S

BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


async def body_of(options: Options, request: BackendRequest) -> bytes:
    backend = build(options)
    try:
        response = await backend.send(request)
        try:
            return b"".join([chunk async for chunk in response.chunks])
        finally:
            await response.chunks.aclose()
    finally:
        await backend.aclose()


async def test_body_gets_model_and_adapter_and_nothing_else() -> None:
    async with fault_upstream() as upstream:
        options = Options(
            url=f"{upstream.url}?v=1", served_model="calc", extra_body={"lora": [{"id": 1, "scale": 1.0}]}
        )
        sent = {**BODY, "lora": [{"id": 9, "scale": 5}], "seed": 3}
        assert await body_of(options, BackendRequest(sent)) == orjson.dumps(ANSWER)
    assert upstream.targets == ["/v1/chat/completions?v=1"]
    assert upstream.requests == [{**BODY, "model": "calc", "lora": [{"id": 1, "scale": 1.0}], "seed": 3}]


async def test_lines_of_batches_wait_for_others_where_the_engine_serves_by_priority() -> None:
    async with fault_upstream() as upstream:
        for takes, is_batch in ((True, True), (True, False), (False, True)):
            options = Options(url=upstream.url, served_model="m", takes_priority=takes)
            await body_of(options, BackendRequest({**BODY, "priority": 3}, is_batch=is_batch))
    assert [sent["priority"] for sent in upstream.requests] == [1_000_000, 3, 3]


async def test_large_prompts_go_through() -> None:
    async with fault_upstream() as upstream:
        sent = {**BODY, "messages": [{"role": "user", "content": "x" * 3_000_000}]}
        await body_of(Options(url=upstream.url, served_model="m"), BackendRequest(sent))
    assert len(upstream.requests[0]["messages"][0]["content"]) == 3_000_000


async def test_connections_are_kept() -> None:
    async with fault_upstream() as upstream:
        backend: Any = build(Options(url=upstream.url, served_model="m"))
        for _ in range(3):
            response = await backend.send(BackendRequest(BODY))
            assert [chunk async for chunk in response.chunks]
            await response.chunks.aclose()
        pool = backend._sessions[True].connector
        assert sum(len(kept) for kept in pool._conns.values()) == 1
        await backend.aclose()


async def test_sockets_send_without_delay() -> None:
    """Nagle's algorithm would hold small requests back for up to 40 ms."""
    import socket

    async with fault_upstream("paced") as upstream:
        backend: Any = build(Options(url=upstream.url, served_model="m"))
        response = await backend.send(BackendRequest({**BODY, "stream": True}, is_stream=True))
        transport = response.chunks._response.connection.transport
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        await response.chunks.aclose()
        await backend.aclose()


@pytest.mark.parametrize(
    ("mode", "options", "status", "is_retryable"),
    [("reset", {}, 502, True), ("hang", {"timeout_s": 0.2}, 504, False), ("partial_head", {}, 502, None)],
)
async def test_no_answer(mode: str, options: dict, status: int, is_retryable: bool | None) -> None:
    async with fault_upstream(mode) as upstream:
        with pytest.raises(BackendError) as failed:
            await body_of(Options(url=upstream.url, served_model="m", **options), BackendRequest(BODY))
    assert failed.value.status == status
    assert is_retryable in (None, failed.value.is_retryable)
    assert upstream.url.split("/")[2] not in str(failed.value)


async def test_nobody_there() -> None:
    with pytest.raises(BackendError, match="cannot be reached") as failed:
        await body_of(Options(url="http://127.0.0.1:1/v1", served_model="m"), BackendRequest(BODY))
    assert (failed.value.status, failed.value.is_retryable) == (503, True)


async def test_cut_body() -> None:
    async with fault_upstream("cut_body") as upstream:
        with pytest.raises(BackendError, match="cut off") as failed:
            await body_of(Options(url=upstream.url, served_model="m"), BackendRequest(BODY))
    assert not failed.value.is_retryable


async def test_closing_the_answer_cancels_it() -> None:
    async with fault_upstream("paced") as upstream:
        backend = build(Options(url=upstream.url, served_model="m"))
        response = await backend.send(BackendRequest({**BODY, "stream": True}, is_stream=True))
        await anext(response.chunks)
        await response.chunks.aclose()
        await asyncio.wait_for(upstream.cancelled.wait(), DEADLINE_S)
        await backend.aclose()


async def test_is_alive() -> None:
    async with fault_upstream() as upstream:
        backend = build(Options(url=upstream.url, served_model="m"))
        assert await backend.is_alive()
    assert not await backend.is_alive()
    await backend.aclose()


def test_fields_of_answers_are_replaced_and_no_text_of_them() -> None:
    ids = b'{"id": "chatcmpl-Xy1","tools":[{"id":"chatcmpl-tool-1"}],'
    said = b'"choices":[{"delta":{"content":"say \\"model\\":\\"upstream-model\\""}}],"model":"/path/to \\"x\\".gguf"}'
    lines = b"data: " + ids + said + b"\n\n" + STREAM
    for pattern, field in ((MODEL_FIELD, b'"model":"a\\\\1"'), (ID_FIELD, b'"id":"chatcmpl-dec-1"')):
        lines = pattern.sub(literal(field), lines)
    expected = ids.replace(b' "chatcmpl-Xy1', b'"chatcmpl-dec-1') + said.replace(
        b'"model":"/path/to \\"x\\".gguf"', b'"model":"a\\\\1"'
    )
    assert lines == b"data: " + expected + b"\n\n" + STREAM.replace(b'"model":"upstream-model"', b'"model":"a\\\\1"')


@given(st.binary(max_size=80), st.integers(1, 9))
def test_pieces_cut_anywhere_become_whole_lines(sent: bytes, size: int) -> None:
    sent, lines = sent.replace(b"7", b"\n"), WholeLines(100)
    passed = [lines.feed(sent[start : start + size]) for start in range(0, len(sent), size)]
    assert all(not each or each.endswith(b"\n") for each in passed)
    rest = lines.rest()
    assert b"\n" not in rest
    assert b"".join(passed) + rest == sent


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    lines = WholeLines(100)
    assert [lines.feed(b"0123456789") for _ in range(10)] == [b""] * 10
    with pytest.raises(BackendError, match="a line of the expert's answer is larger than 100 bytes"):
        lines.feed(b"0")
