"""Checks of bytes that pass through, numbered as in the project's list of checks."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from coe.fleet.calls.replicas import FIRST_BACKOFF_S, Breaker
from coe.fleet.providers import vllm
from coe.gateway.experts.answer_reader import read_tail
from coe.gateway.experts.call import RETRY_BURST
from tests.gateway.fault_upstream import (
    ANSWER,
    CRLF_STREAM,
    ERROR_EVENT,
    LARGE_STREAM,
    STREAM,
    WORDS,
    delta,
    events,
    fault_upstream,
)
from tests.gateway.running import Running, echoes, faulty, provider, running
from tests.waiting import DEADLINE_S, until

SPLIT_STREAM = events(delta("häßlich"), *WORDS, b"[DONE]")


def sdk(gateway: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=gateway.gateway.url, api_key="unused", max_retries=0)


@pytest.mark.parametrize(
    ("mode", "sent"), [("ok", STREAM), ("split", SPLIT_STREAM), ("crlf", CRLF_STREAM), ("large", LARGE_STREAM)]
)
async def test_check_01_transparent_stream(mode: str, sent: bytes) -> None:
    async with fault_upstream(mode) as upstream, running(echoes(ruby=provider(upstream.url, "ruby-v2"))) as gateway:
        async with gateway.chat("red", stream=True, temperature=0.5, metadata={"kept": [1, None]}) as answer:
            received = await answer.read()
        record = await gateway.record()
    assert received == sent
    assert received.count(b"[DONE]") == 1
    assert (record.state.value, record.finish_reason) == ("answered", "stop")
    # The request's body arrives as it was, but for the model.
    assert upstream.requests[0] == {
        "model": "ruby-v2",
        "messages": [{"role": "user", "content": "red"}],
        "stream": True,
        "temperature": 0.5,
        "metadata": {"kept": [1, None]},
    }


async def test_check_01_transparent_answer() -> None:
    async with faulty() as (gateway, _):
        async with gateway.chat("red") as answer:
            assert await answer.read() == orjson.dumps(ANSWER)
        assert (await gateway.record()).usage.prompt_tokens == 7


async def test_check_02_no_buffering() -> None:
    """The first event is with the client while the upstream still holds the second back."""
    async with faulty("paced") as (gateway, upstream), gateway.chat("red", stream=True) as answer:
        first = await answer.content.readuntil(b"\n\n")
        assert first == events(WORDS[0])
        assert not upstream.gate.is_set()
        upstream.gate.set()
        assert await answer.content.read() == STREAM[len(first) :]


@pytest.mark.parametrize("mode", ["cut", "unfinished"])
async def test_check_03_cut_between_events_is_an_error_event(mode: str) -> None:
    async with faulty(mode) as (gateway, _):
        async with gateway.chat("red", stream=True) as answer:
            received = await answer.text()
        record = await gateway.record()
    assert received.startswith(events(*WORDS[:2]).decode())
    assert "[DONE]" not in received
    error = orjson.loads(received.strip().split("\n\n")[-1].removeprefix("data: "))["error"]
    assert error["code"] == "expert_broken_answer"
    assert (record.state.value, record.error_code) == ("upstream_error", "expert_broken_answer")


@pytest.mark.parametrize("end", [b'data: {"choi', b'data: {"choices":[]}\n'])
async def test_check_03_cut_inside_an_event_is_no_clean_end(end: bytes) -> None:
    """A line that is not whole reaches nobody; behind one that is, no event can tell the error."""
    async with faulty("dies") as (gateway, upstream):
        upstream.lead = (events(WORDS[0]) + end,)
        async with gateway.chat("red", stream=True) as answer:
            if end.endswith(b"\n"):
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.read()
            else:
                assert b'data: {"error"' in (await answer.read()).removeprefix(events(WORDS[0]))
        assert (await gateway.record()).state.value == "upstream_error"


async def test_check_03_openai_client_sees_a_cut() -> None:
    async with faulty("cut") as (gateway, _), sdk(gateway) as client:
        stream = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "red"}], stream=True
        )
        texts = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
        with pytest.raises(openai.APIError, match="cut off"):
            await anext(stream)
    assert texts == ["he", "llo"]


async def test_check_04_error_event_passes_and_is_logged() -> None:
    async with faulty("error_event") as (gateway, _):
        async with gateway.chat("red", stream=True) as answer:
            assert await answer.read() == events(WORDS[0], ERROR_EVENT)
        record = await gateway.record()
    assert (record.state.value, record.error_code) == ("upstream_error", "engine_dead")


async def test_check_05_garbage_is_no_success() -> None:
    async with faulty("garbage") as (gateway, _):
        async with gateway.chat("red", stream=True) as answer:
            assert b"\xff\xfe{not json}" in await answer.read()
        record = await gateway.record()
    assert (record.state.value, record.error_code) == ("upstream_error", "broken_stream")


async def test_broken_framing_ends_in_an_error_event_long_before_the_experts_time(monkeypatch) -> None:
    monkeypatch.setattr(vllm, "LOOK_EVERY_S", 0.02)
    async with (
        faulty("bad_chunk") as (gateway, upstream),
        gateway.chat("red", stream=True) as answer,
    ):
        received = await answer.content.readany()
        upstream.gate.set()
        received += await answer.read()
        assert received.startswith(events(WORDS[0]))
        assert b"expert ruby's answer was cut off" in received
        assert (await gateway.record()).state.value == "upstream_error"
        await until(lambda: gateway.parts.concurrency.running == 0)


@pytest.mark.parametrize("mode", ["odd_type", "untyped", "json_type"])
async def test_an_odd_content_type_is_still_a_stream(mode: str) -> None:
    async with faulty(mode) as (gateway, _):
        async with gateway.chat("red", stream=True) as answer:
            assert await answer.read() == STREAM
            assert answer.headers["content-type"] == "text/event-stream"
        assert (await gateway.record()).state.value == "answered"


async def test_a_client_that_leaves_at_the_end_mark_was_answered() -> None:
    """As the openai package does; the expert keeps the body open for longer."""
    async with faulty("lingering") as (gateway, _):
        answer = await gateway.chat("red", stream=True).__aenter__()
        received = b""
        while b"[DONE]" not in received:
            received += await answer.content.readany()
        answer.close()
        record = await gateway.record()
        assert (record.state.value, record.status, record.finish_reason) == ("answered", 200, "stop")


@pytest.mark.parametrize("has_end", [True, False])
async def test_what_follows_the_end_mark_is_read_for_a_moment(monkeypatch: pytest.MonkeyPatch, has_end: bool) -> None:
    monkeypatch.setattr("coe.gateway.experts.answer_reader.MAX_TAIL_S", 0.05)
    tail = Tail(has_end)
    await read_tail(tail)
    assert (tail.was_read, tail.is_closed) == (has_end, True)


class Tail:
    """One piece, then the end of the body or nothing at all."""

    def __init__(self, has_end: bool) -> None:
        self.pieces, self.has_end, self.was_read, self.is_closed = [b"\n"], has_end, False, False

    def __aiter__(self) -> Tail:
        return self

    async def __anext__(self) -> bytes:
        if self.pieces:
            return self.pieces.pop()
        if not self.has_end:
            await asyncio.Event().wait()
        self.was_read = True
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.is_closed = True


async def test_an_unforeseen_fault_ends_the_trial_of_a_half_open_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    async with faulty() as (gateway, _):
        breaker = gateway.parts.pool.breaker("ruby")
        breaker.open(0.0)
        breaker.probed(True, 1.0)
        with monkeypatch.context() as patched:
            patched.setattr("coe.gateway.experts.call.read_beginning", unforeseen)
            async with gateway.chat("red", model="ruby") as answer:
                assert answer.status == 500
        assert breaker.admits
        async with gateway.chat("red", model="ruby") as answer:
            assert answer.status == 200


async def unforeseen(*_: object) -> None:
    raise ZeroDivisionError


async def test_check_06_no_retry_after_the_first_byte() -> None:
    async with fault_upstream("cut") as bad, fault_upstream() as good:
        backends = echoes(ruby=provider(bad.url), emerald=provider(good.url), plain=provider(good.url))
        async with running(backends) as gateway, gateway.chat("red", stream=True) as answer:
            await answer.read()
    assert (len(bad.requests), len(good.requests)) == (1, 0)


@pytest.mark.parametrize(("mode", "is_stream"), [("hang", False), ("hang", True), ("pings", True)])
async def test_check_07_client_leaves_while_waiting(mode: str, is_stream: bool) -> None:
    async with faulty(mode) as (gateway, upstream):
        request = asyncio.ensure_future(gateway.chat("red", stream=is_stream).__aenter__())
        await asyncio.wait_for(upstream.arrived.wait(), DEADLINE_S)
        request.cancel()
        await asyncio.wait_for(upstream.cancelled.wait(), DEADLINE_S)
        record = await gateway.record()
    assert (record.state.value, record.status, record.served_expert) == ("client_gone", 499, None)


async def test_check_08_client_leaves_mid_stream() -> None:
    async with faulty("paced") as (gateway, upstream):
        async with gateway.chat("red", stream=True) as answer:
            await answer.content.readuntil(b"\n\n")
            answer.close()
        await asyncio.wait_for(upstream.cancelled.wait(), DEADLINE_S)
        record = await gateway.record()
    assert (record.state.value, record.served_expert) == ("client_gone", "ruby")
    assert (record.usage.completion_tokens, record.usage.is_estimated) == (1, True)


async def test_usage_of_a_stream_is_what_the_expert_reports() -> None:
    async with faulty("usage") as (gateway, _):
        async with gateway.chat("red", stream=True) as answer:
            await answer.read()
        usage = (await gateway.record()).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.is_estimated) == (11, 3, False)


@pytest.mark.parametrize(
    ("mode", "status", "code", "retry_after"),
    [
        ("busy", 429, "rate_limited", "7"),
        ("fault", 500, "boom", None),
        ("unavailable", 503, "loading", "1"),
        ("html", 502, "expert_error", None),
        ("too_long", 400, "context_length_exceeded", None),
        ("refuses_key", 502, "expert_credentials", None),
        ("redirect", 502, "expert_broken_answer", None),
    ],
)
async def test_check_10_upstream_errors_keep_their_status(
    mode: str, status: int, code: str, retry_after: str | None
) -> None:
    async with faulty(mode) as (gateway, _):
        async with gateway.chat("red", model="ruby") as answer:
            body = await answer.json()
        record = await gateway.record()
    assert answer.status == status
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    assert answer.headers.get("retry-after") == retry_after
    assert "sk-exp" not in str(body)
    assert (record.state.value, record.status, record.error_code) == ("upstream_error", status, code)


@pytest.mark.parametrize(
    ("mode", "options", "status"),
    [
        ("bad_json", {}, 502),
        ("empty", {}, 502),
        ("cut_body", {}, 502),
        ("partial_head", {}, 502),
        ("reset", {}, 502),
        ("hang", {"timeout_s": 0.2}, 504),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_check_11_broken_answers(mode: str, options: dict[str, Any], status: int, is_stream: bool) -> None:
    async with faulty(mode, provider_options=options, retries=0) as (gateway, _):
        async with gateway.chat("red", stream=is_stream) as answer:
            body = await answer.json()
        record = await gateway.record()
    assert answer.status == status
    assert body["error"]["message"]
    assert record.state.value == ("timed_out" if status == 504 else "upstream_error")


async def test_check_11_an_answer_of_another_kind_is_named() -> None:
    async with faulty("login") as (gateway, _), gateway.chat("red", model="ruby") as answer:
        message = (await answer.json())["error"]["message"]
    assert message == "expert ruby sent text/html that is not a chat completion"


@pytest.mark.parametrize(("mode", "code"), [("unavailable", "loading"), ("busy", "expert_rate_limited")])
async def test_check_12_failover_to_the_next_best_expert(mode: str, code: str) -> None:
    """Red goes to ruby; plain (0.5) is better at red than emerald (0.2)."""
    async with faulty(mode) as (gateway, upstream):
        async with gateway.chat("red") as answer:
            assert (await answer.json())["model"] == "plain"
        record = await gateway.record()
        async with gateway.client.get(f"{gateway.gateway.url}/decisions/{record.decision_id}") as receipt:
            assert (await receipt.json())["why"].endswith(f"to ruby; ruby failed ({code}), so plain was asked")
    # 14: header and log name both experts.
    assert (answer.headers["x-coe-expert"], answer.headers["x-coe-fallback"]) == ("plain", "failover:ruby")
    assert (record.decision.expert, record.served_expert, record.state.value) == ("ruby", "plain", "answered")
    assert record.failures == {"ruby": code}
    assert len(upstream.requests) == 1


async def test_check_12_experts_that_cannot_be_reached_are_no_tries() -> None:
    """An engine that died takes all its experts with it, here the first two in the order for red."""
    gone = provider("http://127.0.0.1:1/v1")
    async with running(echoes(ruby=gone, plain=gone)) as gateway:
        for _ in range(int(RETRY_BURST)):  # two experts each, which is more than the budget of tries
            gateway.parts.pool.alive = frozenset(gateway.parts.pool.names)
            async with gateway.chat("red") as answer:
                assert (answer.status, answer.headers["x-coe-expert"]) == (200, "emerald")


async def test_check_12_no_failover_for_an_expert_named_by_the_client() -> None:
    async with faulty("unavailable") as (gateway, _), gateway.chat("red", model="ruby") as answer:
        assert answer.status == 503


async def test_check_12_a_prompt_that_is_too_long_goes_to_an_expert_with_a_larger_context() -> None:
    async with fault_upstream("too_long") as upstream:
        providers = {"ruby": provider(upstream.url), "plain": provider(upstream.url)}
        async with (
            running(echoes(**providers), entries={"emerald": {"context_tokens": 9000}}) as gateway,
            gateway.chat("red") as answer,
        ):
            assert (answer.status, answer.headers["x-coe-expert"]) == (200, "emerald")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("mode", ["bad_json", "cut_body", "too_long"])
async def test_check_12_nothing_else_is_tried_again(mode: str) -> None:
    async with faulty(mode) as (gateway, upstream), gateway.chat("red") as answer:
        assert answer.status >= 400
    assert len(upstream.requests) == 1


async def test_check_12_budget_bounds_the_extra_load(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fault_upstream("unavailable") as bad:
        backends = {name: provider(bad.url, name) for name in ("ruby", "emerald", "plain")}
        async with running(backends) as gateway:
            monkeypatch.setattr(Breaker, "fail", lambda *_: None)  # breakers would end the load long before
            for _ in range(120):
                async with gateway.chat("red") as answer:
                    assert answer.status == 503
    burst, share = 10, 0.1
    assert len(bad.requests) <= 120 + burst + share * 120
    assert len(bad.requests) > 120


async def test_check_13_breaker_skips_a_dead_expert_and_takes_it_back() -> None:
    async with faulty("unavailable") as (gateway, upstream):
        gateway.stop_clock()
        for _ in range(5):
            async with gateway.chat("red") as answer:
                await answer.read()
        assert gateway.parts.pool.state("ruby").value == "open"
        async with gateway.chat("red") as answer:
            assert answer.headers["x-coe-expert"] == "plain"
        assert len(upstream.requests) == 5
        async with gateway.chat("red", model="ruby") as answer:
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
        upstream.mode = "ok"
        gateway.stop_clock(FIRST_BACKOFF_S)
        await until(lambda: gateway.parts.pool.state("ruby").value == "half_open")
        async with gateway.chat("red") as answer:
            assert answer.headers["x-coe-expert"] == "ruby"
        assert gateway.parts.pool.state("ruby").value == "closed"


async def test_no_expert_alive_is_503() -> None:
    backends = {name: provider("http://127.0.0.1:1/v1", name) for name in ("ruby", "emerald", "plain")}
    async with running(backends) as gateway:
        async with gateway.chat("red") as answer:
            body = await answer.json()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert body["error"]["code"] == "no_expert_alive"
        assert (await gateway.record()).state.value == "rejected"


async def test_check_15_stale_pooled_connection_never_reaches_the_client() -> None:
    """The upstream closes the connection it had announced as kept alive, just as the next request goes out on it."""
    async with stale_server() as (url, count), running(echoes(ruby=provider(url)), retries=0) as gateway:
        for _ in range(4):
            async with gateway.chat("red") as answer:
                assert answer.status == 200
                await answer.read()
        assert count["connections"] > 1
        assert count["dropped"] > 0


class stale_server:
    """Answers one request per connection as if it stayed open, then drops it when the next one comes."""

    def __init__(self) -> None:
        self.count = {"connections": 0, "dropped": 0}

    async def __aenter__(self) -> tuple[str, dict[str, int]]:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1", self.count

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count["connections"] += 1
        is_first = True
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
            )
            await reader.readexactly(length)
            is_chat = b"chat/completions" in head
            if is_chat and not is_first:
                self.count["dropped"] += 1
                break
            is_first = is_first and not is_chat
            body = orjson.dumps(ANSWER) if is_chat else b"{}"
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
            writer.write(body)
        writer.close()
