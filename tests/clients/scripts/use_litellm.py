"""litellm as a client: chat, responses, messages and completions, whole and streamed."""

import asyncio
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

root, key = sys.argv[1:]
ASK = [{"role": "user", "content": "red"}]
OPENAI = {"model": "openai/auto", "api_base": f"{root}/v1", "api_key": key}
MESSAGES = {"model": "anthropic/auto", "api_base": root, "api_key": key}


def sync() -> None:
    for to in (OPENAI, MESSAGES):
        assert litellm.completion(**to, messages=ASK).choices[0].message.content == "It is sunny in Bern.", to
        pieces = litellm.completion(**to, messages=ASK, stream=True)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "It is sunny in Bern.", to
    assert litellm.responses(**OPENAI, input="red").output[0].content[0].text == "It is sunny in Bern."
    *_, last = litellm.responses(**OPENAI, input="red", stream=True)
    assert last.type == "response.completed", last
    text = {**OPENAI, "model": "text-completion-openai/auto"}
    assert litellm.text_completion(**text, prompt="red").choices[0].text == "It is sunny in Bern."


async def use_async() -> None:
    message = await litellm.anthropic.messages.acreate(**MESSAGES, max_tokens=50, messages=ASK)
    assert message["content"][0]["text"] == "It is sunny in Bern."
    assert (await litellm.aresponses(**OPENAI, input="red")).output[0].content[0].text == "It is sunny in Bern."


sync()
asyncio.run(use_async())
