"""Sessions that Codex and Claude Code had with a gateway (record.py), replayed: each request is sent as it was, and the
answer must have the events that the agent got then, and say what the agent understood of it then."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from tests.clients.agents import ANSWER, Exchange, agents_gateway, event_types, load
from tests.clients.engine import HelpfulEngine
from tests.gateway.running import Running

Json = dict[str, Any]


async def replay(name: str, gateway: Running) -> AsyncIterator[tuple[Exchange, list[Json], Mapping[str, str]]]:
    """Each exchange of a recording, with the events and headers of the gateway's answer now."""
    for exchange in load(name):
        url = gateway.root + exchange.path
        async with gateway.client.post(url, json=exchange.body, headers=exchange.headers) as answer:
            text = await answer.text()
            assert answer.status == exchange.status == 200, text
            assert event_types(text) == exchange.events
            yield exchange, [json.loads(line[6:]) for line in text.splitlines() if line[:6] == "data: "], answer.headers


def without_ids(item: Json) -> Json:
    """An item as Codex keeps it: it drops and adds what is null."""
    return {name: value for name, value in item.items() if name not in ("id", "status") and value is not None}


def blocks(events: list[Json]) -> Iterator[Json]:
    """The blocks of a message, put together as Anthropic's client does."""
    for event in events:
        if event["type"] == "content_block_start":
            block, pieces = dict(event["content_block"]), ""
        elif event["type"] == "content_block_delta":
            kind = event["delta"]["type"].removesuffix("_delta")
            if kind == "input_json":
                pieces += event["delta"]["partial_json"]
            else:
                block[kind] += event["delta"][kind]
        elif event["type"] == "content_block_stop":
            yield block | ({"input": json.loads(pieces)} if pieces else {})


async def test_a_session_of_codex() -> None:
    given: list[list[Json]] = []
    experts, names = [], set()
    async with agents_gateway() as (gateway, engine):
        async for exchange, events, headers in replay("codex", gateway):
            items = [without_ids(event["item"]) for event in events if event["type"] == "response.output_item.done"]
            held = [without_ids(item) for item in exchange.body["input"]]
            assert all(item in held for turn in given for item in turn)
            given.append(items)
            experts.append(headers["x-coe-expert"])
            names.add((await gateway.record(len(experts) - 1)).session_id)
    assert [[item["type"] for item in turn] for turn in given[:3]] == [
        ["reasoning", "function_call"],
        ["reasoning", "message", "function_call", "function_call"],
        ["reasoning", "message"],
    ]
    assert given[-1][-1]["content"][0]["text"] == ANSWER
    assert len(names) == 1
    keeps_its_expert(experts, engine)


async def test_a_session_of_claude_code() -> None:
    given: list[list[Json]] = []
    experts = []
    async with agents_gateway() as (gateway, engine):
        async for exchange, events, headers in replay("claude_code", gateway):
            if not exchange.body["tools"]:
                continue  # it asks for a title of the session
            turns = [turn["content"] for turn in exchange.body["messages"] if turn["role"] == "assistant"]
            assert turns == given
            given.append(list(blocks(events)))
            experts.append(headers["x-coe-expert"])
    assert [[block["type"] for block in turn] for turn in given[:3]] == [
        ["thinking", "tool_use"],
        ["thinking", "text", "tool_use", "tool_use"],
        ["thinking", "text"],
    ]
    assert given[-1][-1]["text"] == ANSWER
    first = engine.asked[1]
    assert first["reasoning_effort"] == "high"
    assert not first["messages"][0]["content"].startswith("x-anthropic-billing-header")
    keeps_its_expert(experts, engine)


def keeps_its_expert(experts: list[str], engine: HelpfulEngine) -> None:
    """A task of tools stays with one expert, and the next ask may go to another. Templates take all that is sent."""
    assert experts == ["plain"] * 3 + ["ruby"] * 3
    for body in engine.asked:
        roles = [message["role"] for message in body["messages"]]
        assert roles[0] == "system"
        assert "system" not in roles[1:]


@pytest.mark.parametrize(("name", "header"), [("codex", "session-id"), ("claude_code", "x-claude-code-session-id")])
async def test_another_session_that_begins_the_same_is_another_conversation(name: str, header: str) -> None:
    exchanges = [each for each in load(name) if each.body["tools"]]
    async with agents_gateway() as (gateway, _):
        for exchange, session in ((exchanges[-1], "one"), (exchanges[0], "two")):
            headers = {**exchange.headers, header: session}
            async with gateway.client.post(gateway.root + exchange.path, json=exchange.body, headers=headers) as answer:
                await answer.read()
        assert "x-coe-conversation" not in answer.headers
        assert (await gateway.record(0)).session_id != (await gateway.record(1)).session_id
