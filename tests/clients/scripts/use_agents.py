"""OpenAI's Agents SDK, by responses, its default, and by chat; whole and streamed."""

import asyncio
import sys

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

root, key = sys.argv[1:]
set_tracing_disabled(True)


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


async def main() -> None:
    client = AsyncOpenAI(base_url=f"{root}/v1", api_key=key)
    for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
        agent = Agent(
            name="a", instructions="Be brief.", tools=[weather], model=kind(model="auto", openai_client=client)
        )
        assert (await Runner.run(agent, "red")).final_output == "The tool says: sunny.", kind
        streamed = Runner.run_streamed(agent, "red")
        kinds = [event.type async for event in streamed.stream_events()]
        assert streamed.final_output == "The tool says: sunny.", kind
        assert "raw_response_event" in kinds


asyncio.run(main())
