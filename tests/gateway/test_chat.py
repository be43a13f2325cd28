"""POST /v1/chat/completions with the fake experts: routing, headers, records."""

from __future__ import annotations

import json

from tests.gateway.running import running


async def test_answer_comes_from_the_expert_of_the_category() -> None:
    async with running() as gateway:
        async with gateway.chat("a green ask") as answer:
            body = await answer.json()
        assert answer.status == 200
        assert body["model"] == "emerald"
        assert body["choices"][0]["message"]["content"] == "a green ask"
        assert answer.headers["x-coe-expert"] == "emerald"
        assert answer.headers["x-coe-category"] == "green"
        record = await gateway.record()
        assert answer.headers["x-coe-decision-id"] == record.decision_id
        assert record.decision is not None
        assert (record.decision.expert, record.state.value, record.usage.completion_tokens) == (
            "emerald",
            "answered",
            3,
        )


async def test_stream_comes_from_the_expert_of_the_category() -> None:
    async with running() as gateway:
        async with gateway.chat("red or not", stream=True) as answer:
            events = [line for line in (await answer.text()).split("\n\n") if line]
        assert events[-1] == "data: [DONE]"
        texts = [json.loads(event[6:])["choices"][0]["delta"].get("content", "") for event in events[:-1]]
        assert "".join(texts) == "red or not"
        assert answer.headers["content-type"] == "text/event-stream"
        assert (await gateway.record()).served_expert == "ruby"
