"""OpenAI's own client, sync and async: chat, responses, completions, stream helpers, parse."""

import asyncio
import sys

import openai
from pydantic import BaseModel

root, key = sys.argv[1:]


class Weather(BaseModel):
    city: str
    is_sunny: bool


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "name": "weather", "description": "of a city", "parameters": SCHEMA, "strict": True}
SUNNY = Weather(city="Bern", is_sunny=True)


def sync() -> None:
    with openai.OpenAI(base_url=f"{root}/v1", api_key=key) as client:
        ask = [{"role": "user", "content": "red"}]
        assert client.chat.completions.create(model="auto", messages=ask).choices[0].message.content
        assert (
            client.chat.completions.parse(model="auto", messages=ask, response_format=Weather).choices[0].message.parsed
            == SUNNY
        )
        with client.chat.completions.stream(model="auto", messages=ask) as stream:
            assert stream.get_final_completion().choices[0].message.content == "It is sunny in Bern."
        assert client.responses.create(model="auto", input="red").output_text == "It is sunny in Bern."
        assert client.responses.parse(model="auto", input="red", text_format=Weather).output_parsed == SUNNY
        with client.responses.stream(model="auto", input="red", text_format=Weather) as stream:
            assert stream.get_final_response().output_parsed == SUNNY
        assert (
            client.completions.create(model="auto", prompt="red", max_tokens=9).choices[0].text
            == "It is sunny in Bern."
        )
        items = [{"role": "user", "content": "red"}]
        called = client.responses.create(model="auto", input=items, tools=[TOOL])
        items += [
            *called.output,
            {"type": "function_call_output", "call_id": called.output[0].call_id, "output": "sunny"},
        ]
        assert client.responses.create(model="auto", input=items, tools=[TOOL]).output_text == "The tool says: sunny."


async def use_async() -> None:
    async with openai.AsyncOpenAI(base_url=f"{root}/v1", api_key=key) as client:
        stream = await client.responses.create(model="auto", input="red", stream=True)
        assert [event async for event in stream][-1].response.output_text == "It is sunny in Bern."
        async with client.responses.stream(model="auto", input="red", tools=[TOOL]) as stream:
            assert (await stream.get_final_response()).output[0].parsed_arguments == {"city": "Bern"}
        pieces = [piece async for piece in await client.completions.create(model="auto", prompt="red", stream=True)]
        assert "".join(piece.choices[0].text for piece in pieces) == "It is sunny in Bern."
        try:
            await client.responses.create(model="auto", input="red", previous_response_id="resp_1")
            refused = None
        except openai.BadRequestError as error:
            refused = error.param
        assert refused == "previous_response_id"


sync()
asyncio.run(use_async())
