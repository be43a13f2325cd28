"""Policies that ask several experts, served: one answer, its cost, its receipt, and nothing left running."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from redis import Redis

from coe.decision_log.decision_record import CallState, TerminalState
from coe.decision_log.read import has_failed, why_dropped
from coe.gateway.chat import strategy_run
from coe.router.prices.usage import Usage
from tests.gateway.keys.test_chat_limits import PRICES, Known, caller_with, counted
from tests.gateway.running import Running
from tests.gateway.small_router import EXPERTS
from tests.gateway.strategies.panel import ERROR, FAIL, GARBAGE, HANG, STREAM, composition
from tests.waiting import until

DIFFER = {"ruby": "It is 5.", "emerald": "4.0", "plain": "The answer is 4"}
SAME = {"ruby": "The answer is 4", "emerald": "4.0", "plain": "It is 5."}


class InWork(Counter[str]):
    """Requests that experts have, as residency counts them."""

    def started(self, expert: str) -> None:
        self[expert] += 1

    def ended(self, expert: str) -> None:
        self[expert] -= 1


async def said(gateway: Running, text: str = "red", **fields: Any) -> tuple[str, dict[str, Any], Any]:
    async with gateway.chat(text, **fields) as answer:
        assert answer.status == 200, await answer.text()
        body = await answer.json()
    return body["choices"][0]["message"]["content"], body["usage"], answer.headers


async def test_where_probes_differ_the_arbiter_is_served_with_the_usage_of_all_calls() -> None:
    async with composition(DIFFER) as (gateway, panel):
        text, usage, headers = await said(gateway, stream_options=None)
        assert text == "The answer is 4"
        assert usage == {"prompt_tokens": 30, "completion_tokens": 6, "total_tokens": 36}
        assert sorted(panel.asked) == sorted(EXPERTS)
        told = [headers[f"x-coe-{name}"] for name in ("strategy", "calls", "agreement")]
        assert told == ["agree", "3", "2 of 3"]
        assert headers["x-coe-expert"] == "plain"
        assert "x-coe-fallback" not in headers
        record = await gateway.record()
        assert (record.state, record.served_expert) == (TerminalState.ANSWERED, "plain")
        assert record.usage == Usage(prompt_tokens=30, completion_tokens=6)
        trace = record.strategy
        by_name = {call.expert: call for call in trace.calls}
        assert by_name["emerald"].answer == by_name["plain"].answer != by_name["ruby"].answer
        assert all(call.state is CallState.ANSWERED and call.latency_ms > 0 for call in trace.calls)
        assert not has_failed(record)
        assert why_dropped(record, {record.decision_id: 1.0}) == "several experts were asked"
        async with gateway.client.get(f"{gateway.gateway.url}/decisions/{record.decision_id}") as receipt:
            shown = (await receipt.json())["record"]["strategy"]
        assert [call["expert"] for call in shown["calls"]] == [call.expert for call in trace.calls]
        assert "4" not in {str(call["answer"]) for call in shown["calls"]}  # classes, no texts


async def test_probes_run_at_once_and_what_agrees_needs_no_arbiter() -> None:
    async with composition(SAME, is_open=False) as (gateway, panel):
        asking = asyncio.create_task(said(gateway, "red roses for everybody"))
        await until(lambda: len(panel.asked) == 2)  # before any of them has answered
        panel.gate.set()
        text, usage, headers = await asking
        assert (text, headers["x-coe-calls"], headers["x-coe-agreement"]) == ("The answer is 4", "2", "2 of 2")
        assert usage["total_tokens"] == 24
        assert sorted(panel.asked) == ["emerald", "ruby"]


async def test_a_stream_begins_when_the_answer_is_settled() -> None:
    async with composition(DIFFER) as (gateway, panel):
        in_work = gateway.parts.pool.watcher = InWork()
        client = openai.AsyncOpenAI(base_url=gateway.gateway.url, api_key="unused")
        messages: Any = [{"role": "user", "content": "red"}]
        options: Any = {"include_usage": True}
        stream = await client.chat.completions.create(
            model="auto", messages=messages, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
        await client.close()
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "The answer is 4"
        assert chunks[-1].usage.total_tokens == 36
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None, "stop"]
        async with gateway.chat("red", stream=True) as answer:
            body = await answer.read()
            assert answer.headers["x-coe-expert"] == "plain"
        assert b'"usage"' not in body
        assert body.endswith(b"data: [DONE]\n\n")
        assert not any(body.get("stream") for body in panel.bodies)
        assert (await gateway.record(1)).usage == Usage(prompt_tokens=30, completion_tokens=6)
        await until(lambda: in_work == dict.fromkeys(EXPERTS, 0))


async def test_a_client_that_waits_for_a_stream_hears_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy_run, "WAITING_S", 0.02)
    async with composition(DIFFER, is_open=False) as (gateway, panel), gateway.chat("red", stream=True) as answer:
        assert (answer.status, "x-coe-expert" in answer.headers) == (200, False)
        assert await answer.content.readuntil(b"\n\n") == b": waiting\n\n"
        panel.gate.set()
        rest = await answer.read()
        assert b"The answer is 4" in rest
        assert rest.endswith(b"data: [DONE]\n\n")


async def test_an_error_after_a_comment_is_the_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy_run, "WAITING_S", 0.02)
    says = dict.fromkeys(EXPERTS, FAIL)
    async with composition(says, is_open=False) as (gateway, panel), gateway.chat("red", stream=True) as answer:
        await answer.content.readuntil(b"\n\n")
        panel.gate.set()
        events = (await answer.read()).replace(b": waiting\n\n", b"").strip().split(b"\n\n")
    assert orjson.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "oom"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_client_that_leaves_cancels_every_call(is_stream: bool) -> None:
    async with composition(dict.fromkeys(EXPERTS, HANG)) as (gateway, panel):
        asking = asyncio.create_task(said(gateway, stream=is_stream))
        await until(lambda: len(panel.running) == 2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: panel.cancelled == {"ruby", "emerald"} and not panel.running)
        record = await gateway.record()
        assert (record.state, record.served_expert) == (TerminalState.CLIENT_GONE, None)
        assert {call.state for call in record.strategy.calls} == {CallState.CANCELLED}
        assert gateway.parts.pool.alive == frozenset(EXPERTS)  # their leaving says nothing about the experts


@pytest.mark.parametrize("fault", [FAIL, GARBAGE, STREAM, ERROR])
async def test_a_probe_that_fails_is_no_answer(fault: str) -> None:
    async with composition({"ruby": fault, "emerald": "4", "plain": "5"}) as (gateway, _):
        text, usage, headers = await said(gateway)
        assert (text, headers["x-coe-agreement"]) == ("5", "1 of 2")
        assert usage["total_tokens"] == 24
        record = await gateway.record()
        failed = record.strategy.calls[0]
        assert (failed.expert, failed.state, failed.answer) == ("ruby", CallState.FAILED, None)
        assert failed.error_code


async def test_an_expert_that_is_down_is_not_asked() -> None:
    async with composition(DIFFER) as (gateway, panel):
        gateway.parts.pool.clock = lambda: 0.0
        for _ in range(5):
            (await gateway.parts.pool.call("ruby")).failed()
        text, _, _ = await said(gateway)
        assert text == "The answer is 4"
        assert panel.asked == ["emerald", "plain"]


async def test_where_nobody_answers_a_single_expert_is_asked_as_without_a_strategy() -> None:
    async with composition(dict.fromkeys(EXPERTS, FAIL)) as (gateway, _), gateway.chat("red") as answer:
        assert answer.status == 500
        assert (await answer.json())["error"]["code"] == "oom"


async def test_an_arbiter_that_fails_leaves_the_probes_answer() -> None:
    async with composition({**SAME, "emerald": "5", "plain": FAIL}) as (gateway, panel):
        assert (await said(gateway))[0] == "The answer is 4"
        assert panel.asked[2] == "plain"


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"modalities": ["text"]},
        {"model": "ruby"},
        {"functions": [{"name": "f"}]},
    ],
)
async def test_what_is_more_than_a_text_goes_to_one_expert(fields: dict[str, Any]) -> None:
    async with composition(DIFFER) as (gateway, panel):
        async with gateway.chat("red", **fields) as answer:
            assert answer.status == 200, await answer.text()
            assert "x-coe-strategy" not in answer.headers
            assert answer.headers.get("x-coe-fallback") == (None if "model" in fields else "single")
        assert len(panel.asked) == 1
        trace, told = (await gateway.record()).strategy, next(iter(fields))
        if told == "model":  # the client chose
            assert trace is None
        else:
            assert (trace.name, trace.calls) == ("agree", ())
            assert (trace.declined or "").find(f"'{told}'") >= 0


async def test_answers_of_an_undeclared_kind_are_not_compared() -> None:
    async with composition(DIFFER, sections={"answers": {}}) as (gateway, panel):
        assert (await said(gateway))[0] == "It is 5."
        assert panel.asked == ["ruby"]
        record = await gateway.record()
        assert record.strategy.declined == "no kind of answers is declared for category 'red'"
        assert why_dropped(record, {record.decision_id: 1.0}) is None  # it teaches like any answer of one expert
    async with composition(DIFFER, sections={"answers": {"red": {"kind": "code"}}}) as (gateway, panel):
        _, _, headers = await said(gateway)
        assert (headers["x-coe-fallback"], panel.asked) == ("single", ["ruby"])
        assert (await gateway.record()).strategy.declined.startswith("the request shows nothing")


async def test_where_no_reply_states_such_an_answer_the_first_is_served_as_one_experts() -> None:
    async with composition(dict.fromkeys(EXPERTS, "none at all")) as (gateway, panel):
        text, _, headers = await said(gateway)
        assert (text, headers["x-coe-fallback"], headers["x-coe-agreement"]) == ("none at all", "single", "0 of 3")
        assert sorted(panel.asked) == sorted(EXPERTS)
        record = await gateway.record()
        assert (record.strategy.is_settled, record.strategy.agreed, record.served_expert) == (True, 0, "plain")


async def test_caps_hold_all_calls_before_and_count_each_once_after(redis_url: str) -> None:
    caller, entries = caller_with(usd=5.0), dict.fromkeys(EXPERTS, PRICES)
    each = 10 * 1_000_000 + 2 * 10_000_000
    async with composition(SAME, is_open=False, auth=Known(caller), redis_url=redis_url, entries=entries) as (
        gateway,
        panel,
    ):
        asking = asyncio.create_task(said(gateway))
        await until(lambda: len(panel.asked) == 2)
        with Redis.from_url(redis_url) as client:
            held = next(int(client.get(key) or 0) for key in client.scan_iter("*usd*"))
        panel.gate.set()
        await asking
        spent = (await counted(gateway, redis_url))["usd/month"]
        assert held > 3 * each
        assert spent == 2 * each
        record = await gateway.record()
        assert record.cost_usd == pytest.approx(sum(call.cost_usd for call in record.strategy.calls))
        used = gateway.parts.chat_counts.used
        calls = {c.expert: c.cost_usd for c in record.strategy.calls}
        assert {name: used[name].cost_usd for name in calls} == calls


async def test_calls_that_a_client_left_are_billed_once_at_what_was_held_for_them(redis_url: str) -> None:
    entries = dict.fromkeys(EXPERTS, PRICES)
    async with composition(
        dict.fromkeys(EXPERTS, HANG), auth=Known(caller_with(usd=5.0)), redis_url=redis_url, entries=entries
    ) as (gateway, panel):
        asking = asyncio.create_task(said(gateway))
        await until(lambda: len(panel.running) == 2)
        with Redis.from_url(redis_url) as client:
            held = next(int(client.get(key) or 0) for key in client.scan_iter("*usd*"))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: not panel.running)
        spent = (await counted(gateway, redis_url))["usd/month"]
        assert spent == held // 2  # and the arbiter, and one expert, had all three failed
        assert sorted(panel.asked) == ["emerald", "ruby"]
        record = await gateway.record()
        assert record.cost_usd == pytest.approx(sum(call.cost_usd for call in record.strategy.calls))


async def test_a_broken_connection_of_the_client_leaves_nothing_running() -> None:
    async with composition(dict.fromkeys(EXPERTS, HANG)) as (gateway, panel):
        async with aiohttp.ClientSession() as session:
            body = {"model": "auto", "messages": [{"role": "user", "content": "red"}]}
            asking = asyncio.create_task(session.post(f"{gateway.gateway.url}/chat/completions", json=body))
            await until(lambda: len(panel.running) == 2)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: not panel.running)
        await until(lambda: not {task.get_name() for task in asyncio.all_tasks()} & {"strategy", "strategy-call"})
