"""The fake expert."""

from __future__ import annotations

import orjson

from coe.fleet.calls.backend import BackendRequest
from coe.fleet.providers.echo import Options, build


async def answer(**fields: object) -> bytes:
    messages = [{"role": "user", "content": "one two three"}, {"role": "assistant", "content": "no"}]
    request = BackendRequest({"messages": messages, **fields}, is_stream=bool(fields.get("stream")))
    response = await build(Options(model="parrot")).send(request)
    return b"".join([chunk async for chunk in response.chunks])


async def test_echoes_the_last_question() -> None:
    body = orjson.loads(await answer())
    assert body["choices"][0]["message"]["content"] == "one two three"
    assert (body["model"], body["usage"]["completion_tokens"]) == ("parrot", 3)


async def test_stream_says_the_same() -> None:
    events = (await answer(stream=True, stream_options={"include_usage": True})).decode().split("\n\n")[:-1]
    assert events[-1] == "data: [DONE]"
    values = [orjson.loads(event[6:]) for event in events[:-1]]
    words = [choice["delta"].get("content", "") for value in values for choice in value["choices"]]
    assert "".join(words) == "one two three"
    assert values[-1]["usage"]["total_tokens"] == 6
