"""/v1/responses by OpenAI's client, translated to chat requests."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from coe.gateway.chat.adapters.turn import Turn
from tests.gateway.adapters.scripted import CALLS, SPENT, TEXT, THOUGHT, call, chunk, completion, events, scripted
from tests.gateway.running import Running, echoes, faulty, provider, running

TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
IMAGE = "data:image/png;base64,AAAA"
IMAGE_PART = {"type": "input_image", "image_url": IMAGE}


def test_a_call_whose_arguments_are_an_empty_object_has_them_as_text() -> None:
    steps = Turn().read({"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}}]})
    assert [step.text for step in steps] == ["", "{}"]


def client_of(gateway: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=gateway.gateway.url, api_key="unused", max_retries=0)


async def post(gateway: Running, **fields: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": "auto", "input": "red", **fields}
    async with gateway.client.post(f"{gateway.gateway.url}/responses", json=body) as answer:
        return answer.status, await answer.json()


async def test_a_stream_has_the_official_events_and_adds_up_to_the_response() -> None:
    stream = events(*THOUGHT, *TEXT[:-1], *CALLS, SPENT)
    async with (
        scripted(chat__completions=stream) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        async with client.responses.stream(model="auto", input="red", tools=[TOOL]) as answer:
            seen = [event async for event in answer]
            response = await answer.get_final_response()
        record = await gateway.record()
    text = ["response.content_part.done", "response.output_item.done", "response.output_item.added"]
    arguments = "response.function_call_arguments"
    assert [event.type for event in seen] == [
        *("response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"),
        *("response.reasoning_text.delta", "response.reasoning_text.delta", "response.reasoning_text.done", *text),
        *("response.content_part.added", "response.output_text.delta", "response.output_text.delta"),
        *("response.output_text.done", *text, f"{arguments}.delta", f"{arguments}.delta", f"{arguments}.done"),
        *("response.output_item.done", "response.output_item.added", f"{arguments}.delta", f"{arguments}.done"),
        *("response.output_item.done", "response.completed"),
    ]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    reasoning, message, first, second = response.output
    assert (reasoning.type, message.type, response.output_text) == ("reasoning", "message", "It is sunny.")
    assert [(each.call_id, json.loads(each.arguments)) for each in (first, second)] == [
        ("call_a", {"city": "Bern"}),
        ("call_b", {"city": "Chur"}),
    ]
    assert response.status == "completed"
    assert response.model_dump()["store"] is False
    usage = response.usage
    assert (usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens) == (30, 10, 7)
    assert (record.usage.prompt_tokens, record.finish_reason, record.is_stream) == (30, "tool_calls", True)
    assert engine.bodies[0]["stream_options"] == {"include_usage": True}


async def test_a_whole_answer_and_what_it_was_asked_with() -> None:
    answer = completion(reasoning_content="Hm.", content="It is sunny.")
    async with (
        scripted(chat__completions=answer) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        raw = await client.responses.with_raw_response.create(
            model="auto",
            instructions="Be brief.",
            input="red",
            max_output_tokens=50,
            reasoning={"effort": "low"},
            text={"verbosity": "low"},
            include=["reasoning.encrypted_content"],
            store=True,
            truncation="disabled",
            tool_choice="auto",  # which vLLM refuses in a chat without tools
            parallel_tool_calls=False,
        )
    response = raw.parse()
    assert response.output_text == "It is sunny."
    assert (response.instructions, response.max_output_tokens) == ("Be brief.", 50)
    assert raw.headers["x-coe-expert"] == "ruby"
    assert engine.bodies[0] == {
        "model": "expert",
        "max_completion_tokens": 50,
        "reasoning_effort": "low",
        "verbosity": "low",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "red"}],
    }


async def test_a_whole_conversation_becomes_turns() -> None:
    """As agents send it: developers' words, tools called twice at once, reasoning, images."""
    given = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Use tools."}]},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "red?"}, {"type": "input_image", "image_url": IMAGE}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
    ]
    entries = {name: {"supports": ["images", "json"]} for name in ("ruby", "emerald", "plain")}
    async with (
        scripted(chat__completions=completion(content="ok")) as engine,
        running(echoes(ruby=provider(engine.url)), entries=entries) as gateway,
    ):
        status, _ = await post(gateway, model="ruby", input=given, instructions="Be brief.")
    assert status == 200
    looks = [{"id": each, "type": "function", "function": {"name": "look", "arguments": "{}"}} for each in "ab"]
    assert engine.bodies[0]["messages"] == [
        {"role": "system", "content": "Be brief.\n\nUse tools."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "red?"}, {"type": "image_url", "image_url": {"url": IMAGE}}],
        },
        {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": looks},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ]


async def test_functions_in_a_namespace_have_both_names_on_the_way() -> None:
    """As Codex sends those of MCP servers."""
    group = {"type": "namespace", "name": "mcp__sky", "description": "The sky.", "tools": [TOOL]}
    given = {"type": "function_call", "call_id": "a", "namespace": "mcp__sky", "name": "get_weather", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "a", "output": "sunny"}
    calls = [call(0, '{"city": "Bern"}', id="b", name="mcp__sky__get_weather")]
    stream = events(chunk(tool_calls=calls), chunk("tool_calls"), SPENT)
    entries = {"ruby": {"supports": ["tools", "json"]}}
    async with (
        scripted(chat__completions=stream) as engine,
        running(echoes(ruby=provider(engine.url)), entries=entries) as gateway,
        client_of(gateway) as client,
    ):
        items: Any = [{"role": "user", "content": "red"}, given, output]
        asking = await client.responses.create(model="ruby", input=items, tools=[group], stream=True)
        seen = [event async for event in asking]
    function = engine.bodies[0]["tools"][0]["function"]
    assert (function["name"], function["description"]) == ("mcp__sky__get_weather", "The sky.\nof a city")
    assert engine.bodies[0]["messages"][1]["tool_calls"][0]["function"]["name"] == "mcp__sky__get_weather"
    done = next(event for event in seen if event.type == "response.output_item.done").item
    assert (done.namespace, done.name) == ("mcp__sky", "get_weather")
    assert seen[-1].response.output[0].namespace == "mcp__sky"


class Weather(BaseModel):
    city: str
    is_sunny: bool


async def test_parse_gives_an_object() -> None:
    answer = completion(content='{"city": "Bern", "is_sunny": true}')
    async with (
        scripted(chat__completions=answer) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        response = await client.responses.parse(model="ruby", input="red", text_format=Weather)
    assert response.output_parsed == Weather(city="Bern", is_sunny=True)
    sent = engine.bodies[0]["response_format"]
    assert (sent["type"], sent["json_schema"]["name"], sent["json_schema"]["strict"]) == (
        "json_schema",
        "Weather",
        True,
    )


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the whole conversation"),
        ({"conversation": "conv_1"}, "conversation", "nothing is stored here"),
        ({"background": True}, "background", "allowed: false"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "send 'instructions'"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
        ({"tools": [TOOL, {"type": "custom", "name": "x"}]}, "tools[1].type", "custom"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type", "speaks /v1/responses itself"),
        ({"truncation": "auto"}, "truncation", "speaks /v1/responses itself (`apis` of an expert in experts.yaml)"),
        ({"top_logprobs": 2}, "top_logprobs", "speaks /v1/responses itself"),
        ({"include": ["file_search_call.results"]}, "include", "file_search_call.results"),
        ({"input": [{"type": "item_reference", "id": "m"}]}, "input[0].type", "the item itself"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type", "computer_call"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]}, "input[0].encrypted_content", ""),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type", "input_file"),
        ({"input": [{"role": "user", "content": [{"type": "odd"}]}]}, "input[0].content[0].type", "'odd'; allowed"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "'robot'; allowed: user"),
        ({"input": [{"role": "user", "content": 1}]}, "input[0].content", "a list of objects, got a number"),
        (
            {"input": [{"type": "function_call", "call_id": "a", "name": "f"}]},
            "input[0].arguments",
            "a string, got null",
        ),
        ({"input": []}, "input", "a text or a list of items"),
        ({"instructions": 1}, "instructions", "a string, got a number"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type", "'grammar'; allowed: text"),
        ({"max_output_tokens": 0}, "max_output_tokens", "a whole number from 1"),
        ({"store": "no"}, "store", "true or false"),
        ({"instruction": "x"}, "instruction", "did you mean 'instructions'?"),
        ({"kv_transfer_params": {}}, "kv_transfer_params", "a request to /v1/responses"),
        ({"model": "nothing"}, "model", "does not exist"),
    ],
)
async def test_what_cannot_be_said_is_named(fields: dict[str, Any], param: str, words: str) -> None:
    async with scripted() as engine, running(echoes(ruby=provider(engine.url))) as gateway:
        status, body = await post(gateway, **fields)
    error = body["error"]
    assert (status, error["param"]) == (404 if param == "model" else 400, param)
    assert words in error["message"]
    assert engine.asked == []


@pytest.mark.parametrize("mode", ["cut", "error_event", "garbage", "unfinished", "cut_inside"])
async def test_a_stream_that_breaks_ends_as_failed(mode: str) -> None:
    async with faulty(mode, retries=0) as (gateway, upstream), client_of(gateway) as client:
        upstream.gate.set()
        stream = await client.responses.create(model="ruby", input="red", stream=True)
        last = [event async for event in stream][-1]
        record = await gateway.record()
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert record.state.value == "upstream_error"


async def test_an_answer_cut_by_its_limit_is_incomplete() -> None:
    answer = completion("length", content="It is")
    async with (
        scripted(chat__completions=answer) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        response = await client.responses.create(model="ruby", input="red")
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
