"""Engines that serve one expert alike: which one has a conversation, and who answers where one fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from coe.fleet.calls.replicas import FAILURES_TO_OPEN, FIRST_BACKOFF_S, BreakerState, Replicas
from coe.fleet.providers import echo
from tests.gateway.fault_upstream import FaultUpstream, fault_upstream
from tests.gateway.running import Running, echoes, provider, running
from tests.waiting import until

URLS = ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1", "http://127.0.0.1:3/v1")


def replicated(most: int | None = 8) -> Replicas:
    """An expert whose engines name themselves in their answers."""
    return Replicas("ruby", {url: echo.build(echo.Options(model=url)) for url in URLS}, most)


async def engine_of(gateway: Running, number: int, turns: int) -> str:
    """The engine that answered a turn of a conversation."""
    messages = [{"role": "user", "content": f"red {number}"}]
    for turn in range(1, turns):
        messages += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": f"and {turn}?"}]
    body = {"model": "ruby", "messages": messages}
    async with gateway.client.post(f"{gateway.gateway.url}/chat/completions", json=body) as answer:
        assert answer.status == 200
        assert float(answer.headers["x-coe-queue-ms"]) >= 0
        url = str((await answer.json())["model"])
    decision = f"{gateway.gateway.url}/decisions/{answer.headers['x-coe-decision-id']}"
    async with gateway.client.get(decision) as receipt:
        assert URLS[(await receipt.json())["record"]["engine"] - 1] == url
    return url


async def test_a_conversation_has_one_engine_on_every_gateway_and_after_a_restart() -> None:
    async with running(echoes(ruby=replicated())) as one, running(echoes(ruby=replicated())) as other:
        first = [await engine_of(one, number, 1) for number in range(12)]
        second = [await engine_of(other, number, 2) for number in range(12)]
    async with running(echoes(ruby=replicated())) as again:
        third = [await engine_of(again, number, 3) for number in range(12)]
    assert first == second == third
    assert len(set(first)) == 3


async def test_without_a_limit_no_header_tells_of_a_queue() -> None:
    async with running(echoes(ruby=replicated(None))) as gateway, gateway.chat(model="ruby") as answer:
        assert answer.status == 200
        assert "x-coe-queue-ms" not in answer.headers


async def test_the_wait_at_an_expert_that_failed_counts_too() -> None:
    async with engines("unavailable", most=1) as (gateway, _, _), gateway.chat("red") as answer:
        assert (answer.headers["x-coe-expert"], answer.headers["x-coe-fallback"]) == ("plain", "failover:ruby")
        assert float(answer.headers["x-coe-queue-ms"]) >= 0, "though plain has no queue"


@asynccontextmanager
async def engines(*modes: str, most: int | None = None) -> AsyncIterator[tuple[Running, Replicas, list[FaultUpstream]]]:
    """A gateway whose expert ruby has an engine of each mode."""
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(fault_upstream(mode)) for mode in modes]
        ruby = Replicas("ruby", {each.url: provider(each.url) for each in upstreams}, most)
        gateway = await stack.enter_async_context(running(echoes(ruby=ruby)))
        yield gateway, ruby, upstreams


async def ask(gateway: Running, text: str = "red", **fields: object) -> tuple[int, str]:
    """The status of an answer and its expert."""
    async with gateway.chat(text, **fields) as answer:
        await answer.read()
        return answer.status, answer.headers.get("x-coe-expert", "")


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    "mode", ["unavailable", "crowded", "reset", "fault", "no_model", "busy", "whole_error", "dies"]
)
async def test_an_engine_that_fails_before_it_says_anything_is_followed_by_another_of_its_expert(
    mode: str, is_stream: bool
) -> None:
    async with engines(mode, mode, "ok") as (gateway, ruby, upstreams):
        for number in range(12):
            assert await ask(gateway, f"red {number}", stream=is_stream) == (200, "ruby")
        assert len(upstreams[2].requests) == 12
        assert upstreams[0].requests
        record = await gateway.record()
        assert (record.failures, record.engine) == ({}, 3)
        assert [each.running for each in ruby.all] == [0, 0, 0]


@pytest.mark.parametrize(("mode", "asked"), [("spent", 1), ("oversized", 1), ("refuses", 1), ("unavailable", 2)])
async def test_what_is_true_of_all_engines_is_asked_of_one(mode: str, asked: int) -> None:
    async with engines(mode, mode) as (gateway, _, upstreams):
        status, expert = await ask(gateway)
        assert (status, expert) == ((400, "ruby") if mode == "refuses" else (200, "plain"))
        assert sum(len(each.requests) for each in upstreams) == asked


@pytest.mark.parametrize(("model", "seen"), [("ruby", (500, "ruby")), ("auto", (200, "plain"))])
async def test_a_failure_is_told_where_no_other_engine_takes_the_request_after_it(
    model: str, seen: tuple[int, str]
) -> None:
    async with engines("fault", "ok", most=1) as (gateway, ruby, _):
        pool, (failing, other) = gateway.parts.pool, ruby.all
        held = await pool.call("ruby", tried=[failing])
        failing.breaker.failures = FAILURES_TO_OPEN - 1
        asking = asyncio.create_task(ask(gateway, model=model))
        await until(lambda: failing.breaker.state is BreakerState.OPEN)  # and so the request waits for the other one
        held.cool_down(30.0)
        assert await asking == seen
        record = await gateway.record()
        assert "boom" in {record.error_code, *record.failures.values()}
        assert (other.running, ruby.queue and ruby.queue.taken) == (0, 0)


async def test_a_failure_is_told_where_the_other_engine_has_just_gone() -> None:
    async with engines("fault", "ok") as (gateway, ruby, _):
        await ruby.all[1].backend.aclose()
        ruby.all[1].backend = provider("http://127.0.0.1:1/v1")
        for number in range(12):  # to either one first
            assert await ask(gateway, f"red {number}", model="ruby") == (500, "ruby")
            assert (await gateway.record(number)).error_code == "boom"
            for each in ruby.all:
                each.breaker.succeed()


async def test_an_engine_that_keeps_failing_costs_no_request_and_is_left_out_until_it_answers() -> None:
    async with engines("ok", "ok") as (gateway, ruby, upstreams):
        gateway.stop_clock()
        for number in range(99):
            its = f"red {number}"
            assert await ask(gateway, its) == (200, "ruby")
            if (await gateway.record(number)).engine == 1:
                break
        upstreams[0].mode = "reset"
        for _ in range(FAILURES_TO_OPEN):
            assert await ask(gateway, its) == (200, "ruby")
        states = [each.breaker.state for each in ruby.all]
        assert states == [BreakerState.OPEN, BreakerState.CLOSED]
        upstreams[0].mode = "ok"
        gateway.stop_clock(FIRST_BACKOFF_S)
        await until(lambda: ruby.all[0].breaker.state is BreakerState.HALF_OPEN)
        assert await ask(gateway, its) == (200, "ruby")
        assert ruby.all[0].breaker.state is BreakerState.CLOSED
        for each in upstreams:
            each.mode = "reset"
        for _ in range(FAILURES_TO_OPEN):
            assert await ask(gateway, model="ruby") == (502, "ruby")
        assert gateway.parts.pool.state("ruby") is BreakerState.OPEN


@pytest.mark.parametrize("name", ["ruby", "auto"])
async def test_a_prompt_that_every_engine_fails_at_takes_none_from_others(name: str) -> None:
    async with engines("fault", "fault") as (gateway, ruby, upstreams):
        gateway.stop_clock()
        for _ in range(2 * FAILURES_TO_OPEN):
            assert (await ask(gateway, model=name))[0] in (200, 500)
        assert [each.breaker.state.value for each in ruby.all] == ["closed", "closed"]
        assert sum(len(each.requests) for each in upstreams) == 4 * FAILURES_TO_OPEN
        for number in range(FAILURES_TO_OPEN):
            await ask(gateway, f"red {number}", model=name)
        assert [each.breaker.state.value for each in ruby.all] == ["open", "open"]


async def test_an_engine_that_is_not_there_is_left_out_from_the_start() -> None:
    async with fault_upstream() as upstream:
        ruby = Replicas("ruby", {url: provider(url) for url in ("http://127.0.0.1:1/v1", upstream.url)})
        async with running(echoes(ruby=ruby)) as gateway:
            assert ruby.all[0].breaker.state is BreakerState.OPEN
            assert await ask(gateway, model="ruby") == (200, "ruby")


async def test_only_the_engine_at_its_limit_rests_and_the_shortest_rest_is_told() -> None:
    async with engines("busy", "busy", "ok") as (gateway, ruby, upstreams):
        gateway.stop_clock()
        for upstream, seconds in zip(upstreams, ("50", "20", "40"), strict=True):
            upstream.retry_after = seconds
        for number in range(12):
            assert await ask(gateway, f"red {number}") == (200, "ruby")
        assert [len(each.requests) for each in upstreams] == [1, 1, 12]
        assert [each.breaker.state.value for each in ruby.all] == ["limited", "limited", "closed"]
        upstreams[2].mode = "busy"
        for _ in range(2):  # by the engine's answer, and then without asking it
            async with gateway.chat("red", model="ruby") as answer:
                assert (answer.status, answer.headers["retry-after"]) == (429, "20")
        assert len(upstreams[2].requests) == 13
