"""Experts that are not language models, as backends."""

from __future__ import annotations

import orjson
import pytest

from base.errors import ConfigError
from fleet.backend import BackendRequest
from fleet.wires.builtin import Options, build
from router import plugins

SUM = [{"role": "user", "content": "12 * 11"}]


async def answer(**fields: object) -> tuple[int, bytes]:
    request = BackendRequest({"messages": SUM, **fields}, is_stream=bool(fields.get("stream")))
    response = await build(Options(kind="calculator", name="sums")).send(request)
    return response.status, b"".join([chunk async for chunk in response.chunks])


async def test_an_answer_has_its_name_and_no_usage() -> None:
    status, body = await answer(temperature=0.7, max_tokens=5, n=None, tools=[])
    completion = orjson.loads(body)
    assert status == 200
    assert (completion["model"], completion["choices"][0]["message"]["content"]) == ("sums", "132")
    assert completion["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


async def test_a_stream_keeps_every_line_and_space() -> None:
    said = "def f():\n    return  1\n"
    backend = build(Options(kind="refuse", params={"sentence": said}))
    response = await backend.send(BackendRequest({"messages": SUM}, is_stream=True))
    events = [orjson.loads(line[6:]) for line in b"".join([c async for c in response.chunks]).split(b"\n\n")[:-2]]
    assert "".join(c["delta"].get("content", "") for event in events for c in event["choices"]) == said


async def test_a_stream_says_the_same() -> None:
    _, body = await answer(stream=True, stream_options={"include_usage": True})
    events = body.decode().split("\n\n")[:-1]
    values = [orjson.loads(event[6:]) for event in events[:-1]]
    assert events[-1] == "data: [DONE]"
    assert "".join(c["delta"].get("content", "") for v in values for c in v["choices"]) == "132"
    assert values[-1]["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "tell me a story"}]},
        {"messages": [{"role": "system", "content": "Answer in words."}, *SUM]},
        {"messages": [*SUM, {"role": "assistant", "content": "132"}, *SUM]},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
        {"logprobs": True},
        {"stop": ["3"]},
        {"unheard_of": 1},
    ],
)
async def test_abstains_from_what_asks_for_more_than_the_answer(fields: dict[str, object]) -> None:
    status, body = await answer(**fields)
    assert (status, orjson.loads(body)["error"]["code"]) == (422, "abstained")


def test_an_unknown_kind_and_a_wrong_setting_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown kind 'calculater'.*did you mean 'calculator'"):
        build(Options(kind="calculater"))
    with pytest.raises(ConfigError, match="sentence: required option is missing"):
        plugins.validate_options("fleet.wires", "builtin", {"kind": "refuse"})
