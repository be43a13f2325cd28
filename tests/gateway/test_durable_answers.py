"""In the log's modes that wait, an answer ends when its row is safe, and with an error when it does not become so."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from coe.base.errors import StoreError
from coe.decision_log.decision_record import DecisionRecord, TerminalState
from tests.gateway.fault_upstream import CRLF_STREAM, STREAM, FaultUpstream, fault_upstream
from tests.gateway.running import Running, echoes, provider, running
from tests.memory_log import MemoryLog
from tests.waiting import until


class WaitingLog(MemoryLog):
    """A log whose disk takes records while `is_free`, and refuses them when `is_broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_durable = True
        self.is_free = asyncio.Event()
        self.is_broken = False
        self.waiting = 0

    async def commit(self, record: DecisionRecord) -> None:
        self.waiting += 1
        await self.is_free.wait()
        if self.is_broken:
            raise StoreError("the decision log cannot be written (spool: no room)", is_retryable=True)
        self.append(record)


def upstream_as_ruby(upstream: FaultUpstream, log: MemoryLog) -> AbstractAsyncContextManager[Running]:
    return running(echoes(ruby=provider(upstream.url, "ruby")), log=log)


async def test_a_whole_answer_comes_after_its_row() -> None:
    log = WaitingLog()
    async with running(log=log) as gateway:
        asking = asyncio.create_task(answer(gateway))
        await until(lambda: log.waiting == 1)
        assert not asking.done()
        log.is_free.set()
        status, _ = await asking
        assert status == 200
        assert [record.state for record in log.records] == [TerminalState.ANSWERED]


async def answer(gateway: Running, **fields: object) -> tuple[int, bytes]:
    async with gateway.chat(**fields) as response:
        return response.status, await response.read()


@pytest.mark.parametrize(("mode", "stream"), [("ok", STREAM), ("crlf", CRLF_STREAM)])
async def test_a_stream_flows_but_its_end_mark_comes_after_its_row(mode: str, stream: bytes) -> None:
    log = WaitingLog()
    async with fault_upstream(mode) as upstream, upstream_as_ruby(upstream, log) as gateway:
        async with gateway.chat(stream=True) as response:
            before_end = stream.index(b"data: [DONE]")
            assert await response.content.readexactly(before_end) == stream[:before_end]
            await until(lambda: log.waiting == 1)
            log.is_free.set()
            assert await response.read() == stream[before_end:]
        assert [record.usage.completion_tokens for record in log.records] == [2]


async def test_the_end_does_not_come_while_the_row_is_not_safe() -> None:
    log = WaitingLog()
    async with (
        fault_upstream("ok") as upstream,
        upstream_as_ruby(upstream, log) as gateway,
        gateway.chat(stream=True) as response,
    ):
        received = b""
        while b'"stop"' not in received:
            received += await response.content.readany()
        await until(lambda: log.waiting == 1)
        rest = asyncio.create_task(response.content.readany())
        await asyncio.wait([rest], timeout=0.2)
        assert not rest.done()
        assert b"[DONE]" not in received
        log.is_free.set()
        assert b"[DONE]" in await rest


async def test_a_row_that_cannot_be_written_is_a_503() -> None:
    log = WaitingLog()
    log.is_broken = True
    log.is_free.set()
    async with running(log=log) as gateway, gateway.chat() as response:
        assert response.status == 503
        assert response.headers["retry-after"]
        assert (await response.json())["error"]["code"] == "store_unavailable"


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"model": "ruby"}])
async def test_no_expert_is_asked_while_no_row_could_be_written(fields: dict[str, object]) -> None:
    log = MemoryLog()
    log.is_durable, log.problem = True, "spool: No space left on device"
    async with fault_upstream("ok") as upstream, upstream_as_ruby(upstream, log) as gateway:
        async with gateway.chat(**fields) as response:
            assert response.status == 503
            assert response.headers["retry-after"]
            assert "x-coe-decision-id" not in response.headers
            error = (await response.json())["error"]
        assert (error["code"], "No space left on device" in error["message"]) == ("store_unavailable", True)
        async with gateway.client.get(f"{gateway.root}/readyz") as ready:
            assert ready.status == 503
            missing = (await ready.json())["missing"]
        assert missing == ["the decision log cannot be written (spool: No space left on device)"]
        assert upstream.requests == []
        assert log.records == []
        log.problem = None
        status, _ = await answer(gateway, **fields)
        assert status == 200
        async with gateway.client.get(f"{gateway.root}/readyz") as ready:
            assert ready.status == 200


async def test_a_stream_whose_row_cannot_be_written_ends_in_an_error_event() -> None:
    log = WaitingLog()
    log.is_broken = True
    log.is_free.set()
    async with fault_upstream("ok") as upstream, upstream_as_ruby(upstream, log) as gateway:
        _, received = await answer(gateway, stream=True)
    assert received.startswith(STREAM[: STREAM.index(b"data: [DONE]")])
    assert b"store_unavailable" in received
    assert b"[DONE]" not in received


@pytest.mark.parametrize(
    ("mode", "state"), [("bad_json", TerminalState.UPSTREAM_ERROR), ("cut", TerminalState.UPSTREAM_ERROR)]
)
async def test_an_error_comes_after_its_row_too(mode: str, state: TerminalState) -> None:
    log = WaitingLog()
    async with fault_upstream(mode) as upstream, upstream_as_ruby(upstream, log) as gateway:
        asking = asyncio.create_task(answer(gateway, stream=True))
        await until(lambda: log.waiting == 1)
        assert not asking.done()
        log.is_free.set()
        _, body = await asking
        assert b'"error"' in body
        assert [record.state for record in log.records] == [state]


async def test_a_client_that_leaves_while_its_end_waits_has_one_row() -> None:
    log = WaitingLog()
    async with running(log=log) as gateway:
        asking = asyncio.create_task(answer(gateway))
        await until(lambda: log.waiting == 1)
        asking.cancel()
        await until(lambda: gateway.parts.concurrency.running == 0)
        assert log.waiting == 1
        assert log.records == []  # the commit was given up with the client; a real log keeps the record


async def test_where_nothing_waits_the_number_is_taken_before_the_end_is_seen() -> None:
    """So that the log misses the row of every answer that a client saw, even when the gateway is killed right then."""
    log = MemoryLog()
    async with (
        fault_upstream("lingering") as upstream,
        upstream_as_ruby(upstream, log) as gateway,
        gateway.chat(stream=True) as response,
    ):
        received = b""
        while b"[DONE]" not in received:
            received += await response.content.readany()
        assert log.next_seq() == 1
        assert (await gateway.record()).seq == 0
        await response.read()
        assert not upstream.gate.is_set()


async def test_a_refused_request_waits_for_nothing() -> None:
    async with (
        running(log=WaitingLog()) as gateway,
        gateway.client.post(f"{gateway.gateway.url}/chat/completions") as no,
    ):
        assert no.status == 400
