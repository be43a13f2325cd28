"""LlamaIndex: OpenAI's class with its default model, to which an alias gives a meaning, and OpenAILike."""

import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike

root, key = sys.argv[1:]


def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


TALK = [ChatMessage(role="user", content="red")]
openai, responses = OpenAI(api_base=f"{root}/v1", api_key=key), OpenAIResponses(api_base=f"{root}/v1", api_key=key)
like = OpenAILike(api_base=f"{root}/v1", api_key=key, model="auto")  # speaks /v1/completions by default
for model in (openai, responses, like):
    assert str(model.complete("red")) == "It is sunny in Bern.", model
    assert "".join(piece.delta or "" for piece in model.stream_complete("red")) == "It is sunny in Bern.", model
for model in (openai, responses):
    assert model.chat(TALK).message.content == "It is sunny in Bern."
    called = model.predict_and_call([FunctionTool.from_defaults(weather)], "red")
    assert "sunny in Bern" in str(called), called
