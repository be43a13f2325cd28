"""Anthropic's own client, sync and async: messages, stream helpers, tools, counting."""

import asyncio
import sys

import anthropic

root, key = sys.argv[1:]
ASK = [{"role": "user", "content": "red"}]
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def sync() -> None:
    with anthropic.Anthropic(base_url=root, api_key=key) as client:
        message = client.messages.create(model="auto", max_tokens=50, messages=ASK)
        assert message.content[0].text == "It is sunny in Bern."
        assert message.usage.input_tokens == 20
        called = client.messages.create(model="auto", max_tokens=50, messages=ASK, tools=[TOOL])
        assert (called.stop_reason, called.content[0].input) == ("tool_use", {"city": "Bern"})
        result = {"type": "tool_result", "tool_use_id": called.content[0].id, "content": "sunny"}
        turns = [*ASK, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
        with client.messages.stream(model="auto", max_tokens=50, messages=turns, tools=[TOOL]) as stream:
            assert stream.get_final_text() == "The tool says: sunny."
        assert client.messages.count_tokens(model="auto", messages=ASK).input_tokens > 0


async def use_async() -> None:
    async with anthropic.AsyncAnthropic(base_url=root, auth_token=key) as client:
        async with client.messages.stream(model="auto", max_tokens=50, messages=ASK, tools=[TOOL]) as stream:
            assert (await stream.get_final_message()).content[0].input == {"city": "Bern"}
        async with client.messages.stream(model="auto", max_tokens=50, messages=ASK) as stream:
            assert "".join([text async for text in stream.text_stream]) == "It is sunny in Bern."


sync()
asyncio.run(use_async())
