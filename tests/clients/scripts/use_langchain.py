"""LangChain's models of OpenAI, by chat and by responses, and of Anthropic: talk, stream, tools, objects."""

import sys

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

root, key = sys.argv[1:]


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    is_sunny: bool


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def text_of(message: object) -> str:
    text = message.text
    return text() if callable(text) and not isinstance(text, str) else str(text)


MODELS = {
    "chat": ChatOpenAI(base_url=f"{root}/v1", api_key=key, model="auto"),
    "responses": ChatOpenAI(base_url=f"{root}/v1", api_key=key, model="auto", use_responses_api=True),
    "messages": ChatAnthropic(base_url=root, api_key=key, model="auto"),
}
for name, model in MODELS.items():
    assert text_of(model.invoke("red")) == "It is sunny in Bern.", name
    assert "".join(text_of(piece) for piece in model.stream("red")) == "It is sunny in Bern.", name
    with_tools = model.bind_tools([weather])
    called = with_tools.invoke("red")
    assert called.tool_calls[0]["args"] == {"city": "Bern"}, (name, called)
    result = ToolMessage(weather.invoke(called.tool_calls[0]["args"]), tool_call_id=called.tool_calls[0]["id"])
    assert text_of(with_tools.invoke([HumanMessage("red"), called, result])) == "The tool says: sunny.", name
    assert model.with_structured_output(Weather).invoke("red") == Weather(city="Bern", is_sunny=True), name
assert OpenAI(base_url=f"{root}/v1", api_key=key, model="auto").invoke("red") == "It is sunny in Bern."
