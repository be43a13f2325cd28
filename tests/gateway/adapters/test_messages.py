"""/v1/messages by Anthropic's client, translated to chat requests."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from coe.gateway.chat.adapters.messages_answer import error_values
from coe.gateway.http_errors import ApiError
from tests.gateway.adapters.scripted import CALLS, SPENT, TEXT, THOUGHT, call, chunk, completion, events, scripted
from tests.gateway.running import Running, echoes, faulty, provider, running

KEY = "canary-7f3a9c51e2b84d06"
TOOL: Any = {
    "name": "get_weather",
    "description": "of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ASK: Any = [{"role": "user", "content": "red"}]


def client_of(gateway: Running, key: str = "unused") -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=gateway.root, api_key=key, max_retries=0)


async def post(gateway: Running, path: str = "messages", **fields: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": "auto", "max_tokens": 20, "messages": ASK, **fields}
    async with gateway.client.post(f"{gateway.gateway.url}/{path}", json=body) as answer:
        return answer.status, await answer.json()


async def test_a_stream_has_the_official_events_and_adds_up_to_the_message() -> None:
    stream = events(*THOUGHT, *TEXT[:-1], *CALLS, SPENT)
    async with (
        scripted(chat__completions=stream) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        asking = await client.messages.create(
            model="auto",
            max_tokens=50,
            messages=ASK,
            tools=[TOOL],
            thinking={"type": "enabled", "budget_tokens": 1024},
            stream=True,
        )
        seen = [event async for event in asking]
        async with client.messages.stream(
            model="auto", max_tokens=50, messages=ASK, tools=[TOOL], thinking={"type": "adaptive"}
        ) as streamed:
            message = await streamed.get_final_message()
        record = await gateway.record()
    added = ["content_block_start", "content_block_delta", "content_block_delta"]
    assert [event.type for event in seen] == [
        *("message_start", *added, "content_block_delta", "content_block_stop", *added, "content_block_stop"),
        *(*added, "content_block_stop", *added[:2], "content_block_stop", "message_delta", "message_stop"),
    ]
    assert [event.index for event in seen if event.type == "content_block_start"] == [0, 1, 2, 3]
    thinking, text, first, second = message.content
    assert (thinking.thinking, text.text) == ("Let me see.", "It is sunny.")
    assert [(each.id, each.input) for each in (first, second)] == [
        ("call_a", {"city": "Bern"}),
        ("call_b", {"city": "Chur"}),
    ]
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (
        20,
        10,
        7,
    )
    assert (record.usage.prompt_tokens, record.finish_reason) == (30, "tool_calls")
    assert engine.bodies[0]["reasoning_effort"] == "low"


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_is_shown_only_where_it_was_asked_for(stream: bool) -> None:
    answer: Any = events(*THOUGHT, *TEXT) if stream else completion(reasoning_content="Hm.", content="It is sunny.")
    async with (
        scripted(chat__completions=answer) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        if stream:
            async with client.messages.stream(model="auto", max_tokens=50, messages=ASK) as streamed:
                message = await streamed.get_final_message()
        else:
            message = await client.messages.create(model="auto", max_tokens=50, messages=ASK)
    assert [block.type for block in message.content] == ["text"]
    assert (message.stop_reason, message.model) == ("end_turn", "engine-model")


async def test_a_whole_conversation_becomes_turns() -> None:
    """As agents send it: blocks of a system with marks of the cache, tools called twice at once, results, images."""
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    given = [
        {"role": "user", "content": [{"type": "text", "text": "red?"}, {"type": "image", "source": source}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "a", "name": "look", "input": {"at": 1}},
                {"type": "tool_use", "id": "b", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "1", "cache_control": {"type": "ephemeral"}},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no"}],
                },
                {"type": "text", "text": "and now?"},
            ],
        },
    ]
    system = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Use tools.", "cache_control": {}}]
    entries = {name: {"supports": ["images", "tools", "json"]} for name in ("ruby", "emerald", "plain")}
    async with (
        scripted(chat__completions=completion(content="ok")) as engine,
        running(echoes(ruby=provider(engine.url)), entries=entries) as gateway,
    ):
        status, _ = await post(
            gateway,
            model="ruby",
            messages=given,
            system=system,
            tools=[TOOL],
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
            stop_sequences=["END"],
            top_k=5,
            metadata={"user_id": "u"},
            output_config={"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}},
            context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        )
    assert status == 200
    names = {"a": '{"at":1}', "b": "{}"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert engine.bodies[0] == {
        "model": "expert",
        "max_completion_tokens": 20,
        "stop": ["END"],
        "top_k": 5,
        "user": "u",
        "reasoning_effort": "xhigh",
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        "tools": [
            {
                "type": "function",
                "function": {"name": TOOL["name"], "description": "of a city", "parameters": TOOL["input_schema"]},
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "messages": [
            {"role": "system", "content": "Be brief.\nUse tools."},
            {"role": "user", "content": [{"type": "text", "text": "red?"}, image]},
            {
                "role": "assistant",
                "content": "I look.",
                "reasoning_content": "Hm.",
                "tool_calls": [
                    {"id": each, "type": "function", "function": {"name": "look", "arguments": arguments}}
                    for each, arguments in names.items()
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": "Error:\nno"},
            {"role": "user", "content": "and now?"},
        ],
    }


async def test_a_stop_sequence_is_named_where_the_engine_says_which() -> None:
    answer = completion(content="It")
    answer["choices"][0]["stop_reason"] = "END"
    async with (
        scripted(chat__completions=answer) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        message = await client.messages.create(model="auto", max_tokens=50, messages=ASK, stop_sequences=["END"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")


@pytest.mark.parametrize("is_stream", [False, True])
async def test_parts_and_objects_in_place_of_texts_are_not_lost(is_stream: bool) -> None:
    """Mistral's models that reason send parts, and llama.cpp sent arguments as an object for a while."""
    content = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Sunny."}]
    asked = [{**call(0, "", id="a", name="f"), "function": {"name": "f", "arguments": {"city": "Bern"}}}]
    answer: Any = completion("tool_calls", content=content, tool_calls=asked)
    if is_stream:
        answer = events(*(chunk(content=[part]) for part in content), chunk("tool_calls", tool_calls=asked))
    options: Any = {"model": "ruby", "max_tokens": 50, "messages": ASK, "thinking": {"type": "adaptive"}}
    async with (
        scripted(chat__completions=answer) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        if is_stream:
            async with client.messages.stream(**options) as streamed:
                message = await streamed.get_final_message()
        else:
            message = await client.messages.create(**options)
    thought, text, called = message.content
    assert (thought.thinking, text.text, called.input) == ("hm", "Sunny.", {"city": "Bern"})


async def test_arguments_that_are_no_object_are_not_lost() -> None:
    answer = completion("tool_calls", content=None, tool_calls=[call(0, "{broken", id="a", name="f")])
    async with (
        scripted(chat__completions=answer) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        message = await client.messages.create(model="auto", max_tokens=50, messages=ASK)
    assert message.content[0].input == {"invalid_arguments": "{broken"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": None}, "'max_tokens' is null; allowed: a whole number from 1"),
        ({"messages": []}, "'messages' is []; allowed: a non-empty list"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "'messages[0].role' is 'robot'; allowed: user"),
        ({"messages": [{"role": "user", "content": 1}]}, "'messages[0].content' must be a list of objects"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content[0].type (document)"),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "'messages[0].content[0].type' is None; allowed",
        ),
        ({"messages": [*ASK, {"role": "assistant", "content": [{"type": "redacted_thinking"}]}]}, "redacted_thinking"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type (web_search_20250305)"),
        ({"tools": [{"input_schema": {}}]}, "'tools[0].name' must be a string, got null"),
        ({"tool_choice": {"type": "some"}}, "'tool_choice.type' is 'some'; allowed: tool, auto, any, none"),
        ({"thinking": {"type": "deep"}}, "'thinking.type' is 'deep'; allowed: enabled"),
        ({"container": "c"}, "'container': a chat request cannot say this"),
        ({"mcp_servers": [{}]}, "no expert that can serve this request speaks /v1/messages itself"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "'context_management'"),
        ({"max_token": 1}, "did you mean 'max_tokens'?"),
        ({"model": "nothing"}, "the model 'nothing' does not exist"),
    ],
)
@pytest.mark.parametrize("path", ["messages", "messages/count_tokens"])
async def test_what_cannot_be_said_is_named_in_anthropics_shape(fields: dict[str, Any], words: str, path: str) -> None:
    async with scripted() as engine, running(echoes(ruby=provider(engine.url))) as gateway:
        status, body = await post(gateway, path, **fields)
    kind = "not_found_error" if "model" in fields else "invalid_request_error"
    assert (status, body["type"], body["error"]["type"]) == (404 if "model" in fields else 400, "error", kind)
    assert words in body["error"]["message"]
    assert engine.asked == []


async def test_a_tool_runner_that_would_keep_its_conversation_here_sends_it_whole() -> None:
    @anthropic.beta_async_tool
    async def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"sunny in {city}"

    answers = [
        completion("tool_calls", content=None, tool_calls=[call(0, '{"city": "Bern"}', id="a", name="get_weather")])
    ]
    async with (
        scripted(chat__completions=[*answers, completion(content="Sunny.")]) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        runner = client.beta.messages.tool_runner(model="auto", max_tokens=50, messages=ASK, tools=[get_weather])
        message = await runner.until_done()
    assert message.content[0].text == "Sunny."
    assert [each["role"] for each in engine.bodies[1]["messages"]] == ["user", "assistant", "tool"]
    assert engine.bodies[1]["messages"][2]["content"] == "sunny in Bern"


async def test_keys_come_in_either_header() -> None:
    async with (
        running(keys=[KEY]) as gateway,
        client_of(gateway, KEY) as client,
        anthropic.AsyncAnthropic(base_url=gateway.root, auth_token=KEY, max_retries=0) as bearer,
        client_of(gateway, "another-key-of-16-chars") as other,
    ):
        message = await client.messages.create(model="auto", max_tokens=9, messages=ASK)
        again = await bearer.messages.create(model="auto", max_tokens=9, messages=ASK)
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await other.messages.create(model="auto", max_tokens=9, messages=ASK)
        records = gateway.log.records
    assert message.content[0].text == again.content[0].text == "red"
    assert refused.value.body == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "the key is not known here, or has expired"},
        "request_id": refused.value.request_id,
    }
    assert refused.value.request_id is not None
    assert message._request_id == records[0].request_id
    assert records[0].key_id == records[1].key_id is not None


@pytest.mark.parametrize("mode", ["cut", "error_event", "garbage", "unfinished", "cut_inside"])
async def test_a_stream_that_breaks_ends_with_an_error(mode: str) -> None:
    async with faulty(mode, retries=0) as (gateway, upstream), client_of(gateway) as client:
        upstream.gate.set()
        with pytest.raises(anthropic.APIStatusError) as broken:
            async with client.messages.stream(model="ruby", max_tokens=9, messages=ASK) as streamed:
                await streamed.get_final_message()
        record = await gateway.record()
    assert record.state.value == "upstream_error"
    assert broken.value.request_id == broken.value.body["request_id"] == record.request_id


@pytest.mark.parametrize(
    ("mode", "status", "kind"),
    [
        ("busy", 429, "rate_limit_error"),
        ("fault", 500, "api_error"),
        ("unavailable", 503, "overloaded_error"),
        ("refuses", 400, "invalid_request_error"),
        ("refuses_key", 502, "api_error"),
        ("bad_json", 502, "api_error"),
    ],
)
async def test_errors_of_experts_have_anthropics_shape(mode: str, status: int, kind: str) -> None:
    async with faulty(mode, retries=0) as (gateway, _):
        found, body = await post(gateway, model="ruby")
    assert (found, body["type"], body["error"]["type"]) == (status, "error", kind)


async def test_another_expert_answers_when_the_first_fails() -> None:
    async with faulty("unavailable") as (gateway, _), client_of(gateway) as client:
        raw = await client.messages.with_raw_response.create(model="auto", max_tokens=9, messages=ASK)
        record = await gateway.record()
    assert raw.headers["x-coe-fallback"] == "failover:ruby"
    assert (await raw.parse()).content[0].text == "red"
    assert record.served_expert == raw.headers["x-coe-expert"] != "ruby"


async def test_tokens_are_counted_by_the_engine_or_estimated() -> None:
    counts = {"tokenize": {"count": 12, "tokens": []}}
    async with (
        scripted(**counts) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        estimated = await client.messages.with_raw_response.count_tokens(
            model="ruby", messages=[{"role": "user", "content": "red " * 40}]
        )
    assert estimated.headers["x-coe-token-count"] == "estimate"
    assert (await estimated.parse()).input_tokens > 20
    entries = {"ruby": {"engine": "vllm"}}
    async with (
        scripted(**counts) as engine,
        running(echoes(ruby=provider(engine.url)), entries=entries) as gateway,
        client_of(gateway) as client,
    ):
        exact = await client.messages.with_raw_response.count_tokens(model="auto", messages=ASK)
        assert gateway.log.records == []
    assert exact.headers["x-coe-token-count"] == "exact"
    assert exact.request_id == exact.headers["x-request-id"]
    assert (await exact.parse()).input_tokens == 12
    assert engine.asked == [("tokenize", {"model": "expert", "messages": ASK})]
    template, tokens = {"prompt": "<s>red"}, {"tokens": [1, 2, 3]}
    entries = {"ruby": {"engine": "llamacpp"}}
    engines = scripted(**{"apply-template": template, "tokenize": tokens})
    async with (
        engines as engine,
        running(echoes(ruby=provider(engine.url)), entries=entries) as gateway,
        client_of(gateway) as client,
    ):
        assert (await client.messages.count_tokens(model="auto", messages=ASK)).input_tokens == 3


def test_claude_code_hears_that_a_conversation_is_too_long() -> None:
    """It compacts the conversation for these words, and for no others."""
    error = ApiError("no expert holds 9000 tokens", code="context_length_exceeded")
    assert error_values(error, "req-1")["error"]["message"] == "prompt is too long: no expert holds 9000 tokens"
