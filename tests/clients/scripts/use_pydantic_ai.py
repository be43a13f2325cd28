"""pydantic-ai: agents that talk, use a tool and answer by an object, over chat, responses and messages."""

import asyncio
import sys

from anthropic import AsyncAnthropic
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

root, key = sys.argv[1:]


class Weather(BaseModel):
    city: str
    is_sunny: bool


async def use(model: object) -> None:
    seen = []

    def weather(city: str) -> str:
        """The weather of a city."""
        seen.append(city)
        return "sunny"

    assert (await Agent(model).run("red")).output == "It is sunny in Bern."
    assert (await Agent(model, tools=[weather]).run("red")).output == "The tool says: sunny."
    assert seen == ["Bern"]
    assert (await Agent(model, output_type=Weather).run("red")).output == Weather(city="Bern", is_sunny=True)
    async with Agent(model).run_stream("red") as streamed:
        assert await streamed.get_output() == "It is sunny in Bern."


async def main() -> None:
    openai = OpenAIProvider(base_url=f"{root}/v1", api_key=key)
    await use(OpenAIChatModel("auto", provider=openai))
    await use(OpenAIResponsesModel("auto", provider=openai))
    client = AsyncAnthropic(base_url=root, api_key=key)  # the provider's own makes one of an older httpx
    await use(AnthropicModel("auto", provider=AnthropicProvider(anthropic_client=client)))


asyncio.run(main())
