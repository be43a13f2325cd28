"""instructor over chat, responses and messages."""

import sys

import anthropic
import instructor
import openai
from pydantic import BaseModel

root, key = sys.argv[1:]


class Weather(BaseModel):
    city: str
    is_sunny: bool


ASK = [{"role": "user", "content": "red"}]
SUNNY = {"city": "Bern", "is_sunny": True}
client = openai.OpenAI(base_url=f"{root}/v1", api_key=key)
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.RESPONSES_TOOLS):
    patched = instructor.from_openai(client, mode=mode)
    found = patched.chat.completions.create(model="auto", messages=ASK, response_model=Weather)
    assert found.model_dump() == SUNNY, (mode, found)
patched = instructor.from_anthropic(anthropic.Anthropic(base_url=root, api_key=key))
found = patched.messages.create(model="auto", max_tokens=50, messages=ASK, response_model=Weather)
assert found.model_dump() == SUNNY
