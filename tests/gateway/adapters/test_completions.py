"""/v1/completions by OpenAI's client, answered by chat."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.gateway.adapters.scripted import SPENT, TEXT, completion, events, scripted
from tests.gateway.running import Running, echoes, provider, running


def client_of(gateway: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=gateway.gateway.url, api_key="unused", max_retries=0)


async def test_a_prompt_is_answered() -> None:
    async with (
        scripted(chat__completions=completion(content="It is sunny.")) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        answer = await client.completions.create(model="auto", prompt=["red"], temperature=0, stop=["x"])
    assert (answer.object, answer.choices[0].text, answer.choices[0].finish_reason) == (
        "text_completion",
        "It is sunny.",
        "stop",
    )
    assert answer.usage.total_tokens == 37
    assert engine.bodies[0] == {
        "model": "expert",
        "messages": [{"role": "user", "content": "red"}],
        "temperature": 0,
        "stop": ["x"],
        "max_tokens": 16,
    }


@pytest.mark.parametrize("wants_usage", [False, True])
async def test_a_prompt_is_answered_as_a_stream(wants_usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if wants_usage else {}
    async with (
        scripted(chat__completions=events(*TEXT, SPENT)) as engine,
        running(echoes(ruby=provider(engine.url))) as gateway,
        client_of(gateway) as client,
    ):
        stream = await client.completions.create(model="auto", prompt="red", max_tokens=9, stream=True, **options)
        pieces = [piece async for piece in stream]
        body = {"model": "auto", "prompt": "red", "stream": True}
        async with gateway.client.post(f"{gateway.gateway.url}/completions", json=body) as answer:
            assert (await answer.read()).endswith(b"\n\ndata: [DONE]\n\n")
        record = await gateway.record()
    assert "".join(choice.text for piece in pieces for choice in piece.choices) == "It is sunny."
    assert [piece.usage is not None for piece in pieces] == [False, False, False, *([True] if wants_usage else [])]
    assert (record.usage.prompt_tokens, record.usage.is_estimated) == (30, False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True}, "echo"),
        ({"logprobs": 2}, "logprobs"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"prompt": ["red", "green"]}, "prompt"),
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 99}, "n"),
        ({"messages": []}, "messages"),
    ],
)
async def test_what_cannot_be_said_is_named(fields: dict[str, Any], param: str) -> None:
    async with running() as gateway:
        body = {"model": "auto", "prompt": "red", **fields}
        async with gateway.client.post(f"{gateway.gateway.url}/completions", json=body) as answer:
            error = (await answer.json())["error"]
    assert (answer.status, error["param"]) == (400, param)
    assert f"'{param}" in error["message"]
