"""POST /v1/chat/completions with the fake experts: routing, headers, records."""

from __future__ import annotations

import gc
import json

import pytest

from coe.gateway.chat.adapters.adapter import PassedOn, Translated
from coe.gateway.chat.chat import ChatExchange
from coe.gateway.exchange import ChatRow
from coe.gateway.experts.answer_reader import StreamReader
from tests.gateway.running import Running, faulty, running
from tests.waiting import until


async def test_answer_comes_from_the_expert_of_the_category(gateway: Running) -> None:
    async with gateway.chat("a green ask") as answer:
        body = await answer.json()
    assert answer.status == 200
    assert body["model"] == "emerald"
    assert body["choices"][0]["message"]["content"] == "a green ask"
    assert answer.headers["x-coe-expert"] == "emerald"
    assert answer.headers["x-coe-category"] == "green"
    record = await gateway.record()
    assert answer.headers["x-coe-decision-id"] == record.decision_id
    assert (record.decision.expert, record.state.value, record.usage.completion_tokens) == (
        "emerald",
        "answered",
        3,
    )


async def test_stream_comes_from_the_expert_of_the_category(gateway: Running) -> None:
    async with gateway.chat("red or not", stream=True) as answer:
        events = [line for line in (await answer.text()).split("\n\n") if line]
    assert events[-1] == "data: [DONE]"
    texts = [json.loads(event[6:])["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(texts) == "red or not"
    assert answer.headers["content-type"] == "text/event-stream"
    assert (await gateway.record()).served_expert == "ruby"


async def test_whole_numbers_keep_all_digits() -> None:
    """64 bits do not bound a JSON number, though orjson writes none that is longer."""
    large = {"maximum": 2**64, "minimum": -(2**63) - 1, "ids": [2**53 + 1, 10**40, 1.5]}
    async with faulty() as (gateway, upstream):
        async with gateway.chat("red", seed=2**63, metadata={"k": "ü"}, tools=[{"function": large}]) as answer:
            assert answer.status == 200
        async with gateway.chat("red", max_tokens=10**40) as answer:
            error = (await answer.json())["error"]
    sent = upstream.requests[0]
    assert (sent["seed"], sent["tools"], sent["metadata"]) == (2**63, [{"function": large}], {"k": "ü"})
    assert all(type(each) is int for each in (*large["ids"][:2], sent["tools"][0]["function"]["maximum"]))
    assert (answer.status, error["param"]) == (400, "max_tokens")
    assert "allowed: a whole number from 1 to 131072" in error["message"]


async def test_a_follow_up_is_classified_with_its_conversation() -> None:
    asked = [
        {"role": "user", "content": "tell me all about red things and how they came to be red"},
        {"role": "assistant", "content": "they are green, some say green"},
        {"role": "user", "content": "and why?"},
    ]
    switch = [
        *asked[:2],
        {"role": "user", "content": "now to another matter: what makes all those green leaves green?"},
    ]
    async with running() as it:
        for messages, category in ((asked, "red"), (asked[-1:], "general"), (switch, "green")):
            async with it.chat(messages=messages) as answer:
                assert answer.headers["x-coe-category"] == category


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_of_a_chat_waits_for_the_garbage_collector(gateway: Running, path: str, stream: bool) -> None:
    """Which seldom runs in a gateway (`NEW_OBJECTS`), and a request may hold megabytes."""
    body = {"model": "auto", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "a red ask"}]}
    gc.collect()
    gc.disable()
    try:
        async with gateway.client.post(f"{gateway.gateway.url}/{path}", json=body) as answer:
            assert answer.status == 200
            await answer.read()
        await gateway.record()
        kinds = (ChatExchange, ChatRow, PassedOn, Translated, StreamReader)
        await until(lambda: not [each for each in gc.get_objects() if isinstance(each, kinds)])
    finally:
        gc.enable()
