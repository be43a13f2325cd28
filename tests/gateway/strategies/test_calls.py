"""Policies that ask several experts of requests with tools: the same call is served, on every API, and none is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anthropic
import openai
import orjson
import pytest

from coe.decision_log.decision_record import CallState
from tests.gateway.keys.test_chat_limits import PRICES, Known, caller_with, counted
from tests.gateway.running import Running
from tests.gateway.small_router import EXPERTS
from tests.gateway.strategies.panel import FAIL, composition

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA, "strict": True}}
ARGUMENTS = '{ "city":"Oslo, Norway",  "days": 3.0 }'


def calls(*given: str, call_id: str = "call_a") -> str:
    """A list of calls as an expert writes them; `given` are their arguments."""
    function = {"name": "get_weather"}
    listed = [
        {"id": f"{call_id}{at}", "type": "function", "function": {**function, "arguments": each}}
        for at, each in enumerate(given)
    ]
    return orjson.dumps(listed).decode()


SAME = {
    "ruby": calls(ARGUMENTS, '{"days": 1, "city": "Rome"}'),
    "emerald": calls('{"city": "rome", "days": "1"}', '{"days": 3, "city": "Oslo Norway"}', call_id="call_b"),
    "plain": "I would rather not.",
}
DIFFER = {**SAME, "emerald": calls('{"city": "Oslo", "days": 4}'), "plain": calls(ARGUMENTS, call_id="call_c")}


async def chat(gateway: Running, **fields: Any) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    async with gateway.chat("red", tools=[TOOL], **fields) as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["choices"][0], answer.headers


async def test_two_that_make_the_same_calls_are_served_to_the_byte() -> None:
    choice_of_tool = {"type": "function", "function": {"name": "get_weather"}}
    async with composition(SAME) as (gateway, panel):
        panel.beside = {"reasoning_content": "Oslo  first."}
        choice, headers = await chat(gateway, tool_choice=choice_of_tool, parallel_tool_calls=True)
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["tool_calls"] == orjson.loads(SAME["ruby"])
        assert choice["message"]["tool_calls"][0]["function"]["arguments"] == ARGUMENTS
        assert choice["message"]["reasoning_content"] == "Oslo  first."
        told = [headers[f"x-coe-{name}"] for name in ("strategy", "calls", "agreement", "expert")]
        assert told == ["agree", "2", "2 of 2", "ruby"]
        for body in panel.bodies:
            assert body["tools"] == [TOOL]
            assert (body["tool_choice"], body["parallel_tool_calls"]) == (choice_of_tool, True)
        trace = (await gateway.record()).strategy
        assert [call.answer for call in trace.calls] == [0, 0]
        assert all(call.propensity == 1.0 and call.latency_ms > 0 for call in trace.calls)


async def test_where_calls_differ_the_arbiters_is_served_with_its_cost_and_receipt(redis_url: str) -> None:
    caller, entries = caller_with(usd=50.0), dict.fromkeys(EXPERTS, PRICES)
    each = 10 * 1_000_000 + 2 * 10_000_000
    async with composition(DIFFER, auth=Known(caller), redis_url=redis_url, entries=entries) as (gateway, _):
        choice, headers = await chat(gateway)
        assert choice["message"]["tool_calls"] == orjson.loads(DIFFER["plain"])
        assert [headers["x-coe-agreement"], headers["x-coe-expert"]] == ["1 of 3", "plain"]
        record = await gateway.record()
        assert [call.answer for call in record.strategy.calls] == [0, 1, 2]
        assert (await counted(gateway, redis_url))["usd/month"] == 3 * each
        assert record.cost_usd == pytest.approx(sum(call.cost_usd for call in record.strategy.calls))
        async with gateway.client.get(f"{gateway.gateway.url}/decisions/{record.decision_id}") as receipt:
            assert "Oslo" not in await receipt.text()


async def test_no_call_is_an_answer_and_a_declared_kind_compares_the_texts() -> None:
    says = {"ruby": "The sum is 4.", "emerald": "It is 5", "plain": calls(ARGUMENTS)}
    async with composition(says, sections={"answers": {}}) as (gateway, _):
        choice, headers = await chat(gateway)
        assert (choice["message"]["content"], headers["x-coe-agreement"]) == ("The sum is 4.", "2 of 2")
    async with composition(says) as (gateway, _):  # numbers, which differ
        choice, headers = await chat(gateway)
        assert choice["message"]["tool_calls"] == orjson.loads(says["plain"])


async def test_a_call_agrees_with_no_text_and_not_with_one_that_was_cut_off() -> None:
    for other in ('[get_weather(city="Oslo, Norway", days=3)]', calls('{"city": "Oslo'), FAIL):
        says = {"ruby": calls(ARGUMENTS), "emerald": other, "plain": calls(ARGUMENTS, call_id="call_c")}
        async with composition(says, sections={"answers": {}}) as (gateway, _):
            _, headers = await chat(gateway)
            assert headers["x-coe-calls"] == "3", other
            assert headers["x-coe-expert"] == "plain"


async def test_every_step_of_a_loop_is_decided_though_another_expert_made_the_last() -> None:
    async with composition(SAME) as (gateway, panel):
        messages: list[dict[str, Any]] = [{"role": "user", "content": "green weather in Oslo"}]
        for step in range(3):
            choice, headers = await chat(gateway, messages=messages)
            assert (headers["x-coe-calls"], headers["x-coe-expert"]) == ("2", "ruby"), step
            messages.append(choice["message"])
            for call in choice["message"]["tool_calls"]:
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": "12 degrees"})
        assert len(panel.asked) == 6


async def test_openais_client_streams_the_calls() -> None:
    async with composition(SAME) as (gateway, _):
        client = openai.AsyncOpenAI(base_url=gateway.gateway.url, api_key="unused")
        messages: Any = [{"role": "user", "content": "red"}]
        tools: Any = [TOOL]
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="auto", messages=messages, tools=tools, stream=True
            )
        ]
        deltas = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
        assert deltas[0].function.arguments == ARGUMENTS
        assert [each.id for each in deltas] == ["call_a0", "call_a1"]
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        await client.close()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_messages_get_the_calls_and_results_go_back(is_stream: bool) -> None:
    tools: Any = [{"name": "get_weather", "input_schema": SCHEMA}]
    async with composition(SAME) as (gateway, panel):
        client = anthropic.AsyncAnthropic(base_url=gateway.root, api_key="unused")
        messages: Any = [{"role": "user", "content": "red"}]
        for _ in range(2):
            asked: Any = {"model": "auto", "messages": messages, "tools": tools, "max_tokens": 99}
            if is_stream:
                async with client.messages.stream(**asked) as stream:
                    answer: Any = await stream.get_final_message()
            else:
                answer = await client.messages.create(**asked)
            blocks = [block for block in answer.content if block.type == "tool_use"]
            assert [block.input for block in blocks] == [orjson.loads(ARGUMENTS), {"days": 1, "city": "Rome"}]
            assert answer.stop_reason == "tool_use"
            assert answer.usage.output_tokens == 4
            results = [{"type": "tool_result", "tool_use_id": block.id, "content": "12"} for block in blocks]
            messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
        assert len(panel.asked) == 4
        await client.close()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_responses_get_the_calls(is_stream: bool) -> None:
    tools: Any = [{"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": True}]
    async with composition(SAME) as (gateway, _):
        client = openai.AsyncOpenAI(base_url=gateway.gateway.url, api_key="unused")
        answer: Any = await client.responses.create(model="auto", input="red", tools=tools, stream=is_stream)
        if is_stream:
            answer = [event async for event in answer][-1].response
        made = [item for item in answer.output if item.type == "function_call"]
        assert [item.arguments for item in made] == [ARGUMENTS, '{"days": 1, "city": "Rome"}']
        record = await gateway.record()
        assert {call.state for call in record.strategy.calls} == {CallState.ANSWERED}
        await client.close()


async def test_what_a_chat_request_cannot_say_is_for_one_expert() -> None:
    entries = {name: {"engine": "vllm", "url": "http://127.0.0.1:9/v1", "apis": ["responses"]} for name in ("ruby",)}
    async with composition(SAME, entries=entries) as (gateway, panel):
        body = {"model": "auto", "input": "red", "truncation": "auto"}
        async with gateway.client.post(f"{gateway.gateway.url}/responses", json=body) as answer:
            assert answer.status in (200, 400, 502)
            assert "x-coe-strategy" not in answer.headers
        assert len(panel.asked) <= 1
