"""Calls of tools in streams, which engines tell in many ways and clients of three APIs have to add up alike."""

from __future__ import annotations

from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from coe.gateway.chat.event_edits import CallEvents, Calls
from tests.gateway.adapters.scripted import Json, call, chunk, events, scripted
from tests.gateway.running import echoes, provider, running

ASK: Any = [{"role": "user", "content": "red"}]
ONE = {"x": 1}
PARAMETERS: Json = {"type": "object", "properties": {}}


def unnumbered(piece: Json, **more: Any) -> Json:
    return {name: value for name, value in piece.items() if name != "index"} | more


FIRST, REST = call(0, '{"x":', id="a", name="f"), call(0, " 1}")
WAYS: dict[str, list[list[Json]]] = {
    "one index for both": [[FIRST], [REST], [call(0, '{"x": 1}', id="b", name="f")]],
    "no index": [[unnumbered(FIRST)], [unnumbered(REST)], [unnumbered(call(0, '{"x": 1}', id="b", name="f"))]],
    "null as index": [[unnumbered(each, index=None)] for each in (FIRST, REST, call(0, '{"x": 1}', id="b", name="f"))],
    "counted from 1": [[call(1, '{"x": 1}', id="a", name="f")], [call(2, '{"x": 1}', id="b", name="f")]],
    "the name later": [[call(0, "", id="a")], [call(0, '{"x": 1}', name="f")], [call(1, '{"x": 1}', id="b", name="f")]],
    "arguments first": [
        [call(0, '{"x":')],
        [call(0, " 1}", id="a", name="f")],
        [call(1, '{"x": 1}', id="b", name="f")],
    ],
    "both at once": [[FIRST, call(1, "", id="b", name="f")], [REST, call(1, '{"x": 1}')]],
    "in turns": [[FIRST], [call(1, '{"x":', id="b", name="f")], [REST], [call(1, " 1}")]],
    "ids and names again": [[FIRST], [call(0, " 1}", id="a", name="f")], [call(1, '{"x": 1}', id="b", name="f")]],
    "an id each": [[FIRST], [call(0, " 1}", id="z")], [call(1, '{"x": 1}', id="b", name="f")]],
    "objects": [
        [{"index": place, "id": name, "type": "function", "function": {"name": "f", "arguments": ONE}}]
        for place, name in enumerate("ab")
    ],
}


async def test_calls_add_up_alike_for_clients_of_every_api() -> None:
    streams = [events(*(chunk(tool_calls=pieces) for pieces in way), chunk("stop")) for way in WAYS.values()]
    tool: Json = {"name": "f", "parameters": PARAMETERS}
    tools: Any = [{"type": "function", "function": tool}]
    asked: Any = [{"type": "function", "strict": False, **tool}]
    named: Any = [{"name": "f", "input_schema": PARAMETERS}]
    async with (
        scripted(chat__completions=[stream for stream in streams for _ in range(3)]) as engine,
        running(echoes(ruby=provider(engine.url)), entries={"ruby": {"supports": ["tools", "json"]}}) as gateway,
        AsyncOpenAI(base_url=gateway.gateway.url, api_key="unused", max_retries=0) as client,
        AsyncAnthropic(base_url=gateway.root, api_key="unused", max_retries=0) as anthropic,
    ):
        for way in WAYS:
            async with client.chat.completions.stream(model="ruby", messages=ASK, tools=tools) as chat:
                message = (await chat.get_final_completion()).choices[0].message
            called: Any = [(each.id, each.function.name, each.function.arguments) for each in message.tool_calls or ()]
            shown = [(*who, arguments.replace(" ", "")) for *who, arguments in called]
            assert shown == [("a", "f", '{"x":1}'), ("b", "f", '{"x":1}')], way
            async with client.responses.stream(model="ruby", input="red", tools=asked) as response:
                items: Any = (await response.get_final_response()).output
            assert [(each.call_id, each.name, each.arguments) for each in items] == called, way
            async with anthropic.messages.stream(model="ruby", max_tokens=9, messages=ASK, tools=named) as said:
                told = await said.get_final_message()
            blocks: Any = told.content
            assert [(each.id, each.name, each.input) for each in blocks] == [("a", "f", ONE), ("b", "f", ONE)], way
            assert told.stop_reason == "tool_use", way


def test_only_events_that_would_add_up_wrong_are_changed() -> None:
    none = {"function": {"name": None, "arguments": " 1}"}, "id": None, "index": 0}
    edited = CallEvents().edited
    for piece in (FIRST, none, call(1, '{"x": 1}', id="b", name="f")):
        event = events(chunk(tool_calls=[piece]), end=b"")
        assert edited(event) is event


def test_calls_without_ids_and_numbers_are_told_apart_where_each_is_whole() -> None:
    pieces = [call(0, '{"x": 1}', id="", name="f"), call(0, '{"x": 2}', id="", name="f")]
    parts = [call(0, '{"x":', name="f"), call(0, " 1}", name="f")]
    for told, numbers in ((pieces, [0, 1]), (parts, [0, 0])):
        calls = Calls()
        assert [calls.piece(piece, 0)[0].number for piece in told] == numbers
