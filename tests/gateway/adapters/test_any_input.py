"""Whatever a client or an expert sends, the APIs answer with an error of ours or with what was asked."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import BackendError
from coe.fleet.calls.backend import chunks_of
from coe.gateway.app import ADAPTERS
from coe.gateway.chat.adapters.adapter import Adapter, Translated, TranslatingAdapter, translated
from coe.gateway.experts.answer import StreamedAnswer
from coe.gateway.experts.answer_reader import StreamReader, read_answer
from coe.gateway.http_errors import ApiError
from coe.router.config.gateway import GatewayConfig, field_names
from tests.gateway.adapters.test_native import REQUESTS, STREAMS, WHOLE

OTHERS = {path.removeprefix("/v1/"): each for path, each in ADAPTERS.items() if isinstance(each, TranslatingAdapter)}
WORDS = st.sampled_from(
    sorted(
        field_names(
            """
    any arguments auto budget_tokens call_id choices container content data delta developer edits effort enabled error
    finish_reason format function function_call function_call_output id image image_url include index input input_image
    input_text input_tokens json_schema max_tokens media_type message messages metadata model name output output_config
    output_text output_tokens parameters prompt prompt_tokens prompt_tokens_details reasoning reasoning_content refusal
    response role schema source status stop_reason stop_sequences summary system text thinking tool tool_calls
    tool_choice tool_result tool_use tool_use_id tools type url usage user user_id
    """
        )
    )
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=16)
SCALARS = st.none() | st.booleans() | st.integers(-3, 40) | FLOATS | WORDS | st.text(max_size=4)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=12
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=6)


@st.composite
def changed(draw: st.DrawFn, valid: dict[str, Any]) -> dict[str, Any]:
    """A valid object with some of its values replaced, at any depth."""

    def walk(value: Any) -> Any:
        if draw(st.integers(0, 9)) == 0:
            return draw(VALUES)
        if isinstance(value, dict):
            return {name: walk(each) for name, each in value.items()}
        return [walk(each) for each in value] if isinstance(value, list) else value

    return {**{name: walk(value) for name, value in valid.items()}, **draw(st.dictionaries(WORDS, VALUES, max_size=2))}


VALID: dict[str, dict[str, Any]] = {
    "responses": {
        "model": "auto",
        "instructions": "x",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "u"}],
            },
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "b"}], "content": []},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "d"}]},
        ],
        "tools": [
            {"type": "function", "name": "f", "parameters": {}},
            {"type": "mcp", "tools": 5},
            {"type": "namespace", "name": "g", "tools": [{"type": "function", "name": "h"}]},
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
    },
    "messages": {
        "model": "auto",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "x"}],
        "messages": [
            {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "d"}]}],
            },
        ],
        "tools": [{"name": "f", "input_schema": {}}],
        "tool_choice": {"type": "tool", "name": "f"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
        "metadata": {"user_id": "u"},
        "stop_sequences": ["x"],
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    },
    "completions": {"model": "auto", "prompt": ["red"], "max_tokens": 5, "n": 2, "best_of": 2, "stop": ["x"]},
}
CHUNK = {
    "model": "m",
    "choices": [
        {
            "index": 0,
            "delta": {
                "content": "a",
                "reasoning_content": "b",
                "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}],
            },
            "finish_reason": None,
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
}


def asked(adapter: Adapter, body: dict[str, Any]) -> Any:
    return adapter.request(body, GatewayConfig(), {})


@pytest.mark.parametrize("path", OTHERS)
@given(data=st.data())
def test_any_request_is_read_or_refused_by_name(path: str, data: st.DataObject) -> None:
    body = data.draw(changed(VALID[path]) | OBJECTS)
    refusal = None
    try:
        chat = asked(OTHERS[path], body)
        json.dumps(chat.body)
        OTHERS[path].answer(chat, "dec-1", "req-1")
        assert isinstance(chat.text, str)
    except ApiError as error:
        refusal = error
    assert refusal is None or (refusal.status == 400 and json.loads(OTHERS[path].error(refusal, "req-1")))


@pytest.mark.parametrize("path", OTHERS)
@given(data=st.data())
def test_any_stream_is_told_or_broken(path: str, data: st.DataObject) -> None:
    adapter = OTHERS[path]
    answer = adapter.answer(asked(adapter, VALID[path]), "dec-1", "req-1")
    drawn = data.draw(st.lists(changed(CHUNK) | OBJECTS, max_size=4))
    events = [b"data: %b\n\n" % json.dumps(event).encode() for event in drawn]
    told: list[bytes] = []

    async def take(piece: bytes) -> None:
        told.append(piece)

    begun = StreamedAnswer("ruby", "text/event-stream", b": begin\n\n", chunks_of(events))
    delivery = Translated(adapter, answer, begun, 0)
    try:
        asyncio.run(delivery.stream(take))
        told.append(delivery.end())
    except BackendError:
        told.append(delivery.fail(ApiError("broken", status=502)))
    assert b"".join(told).endswith(b"\n\n")


@pytest.mark.parametrize("path", OTHERS)
@given(data=st.data())
def test_any_whole_answer_is_told_or_broken(path: str, data: st.DataObject) -> None:
    adapter = OTHERS[path]
    answer = adapter.answer(asked(adapter, VALID[path]), "dec-1", "req-1")
    valid = {**CHUNK, "choices": [{"message": CHUNK["choices"][0]["delta"], "finish_reason": "stop"}]}
    with suppress(BackendError, ApiError):
        json.loads(translated(answer, json.dumps(data.draw(changed(valid))).encode()))


@pytest.mark.parametrize("path", OTHERS)
@given(data=st.data())
def test_any_answer_on_the_wire_is_read(path: str, data: st.DataObject) -> None:
    native = asked(OTHERS[path], {"model": "auto", **REQUESTS[path]}).native
    frames = [frame.rpartition("data: ")[2] for frame in STREAMS[path].decode().split("\n\n")]
    events = [json.loads(frame) for frame in frames if frame.startswith("{")]
    event = data.draw(st.one_of(*(changed(each) for each in (*events, WHOLE[path])), OBJECTS))
    read_answer(json.dumps(event).encode(), native.as_chat)
    reader = StreamReader(as_chat=native.as_chat)
    reader.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
