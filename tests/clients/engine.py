"""An engine of chat completions that does what it is asked: calls a tool, uses its result, fills a schema, or talks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.served_app import app_of, serving

Json = dict[str, Any]
USAGE = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28}
ANSWER, AFTER_TOOL = "It is sunny in Bern.", "The tool says: sunny."


def filled(schema: Json) -> Json:
    """Values for the properties of a schema."""
    by_type: Json = {"string": "Bern", "boolean": True, "integer": 7, "number": 7.5, "array": [], "object": {}}
    return {
        name: by_type.get(each.get("type", "string"), "Bern") for name, each in schema.get("properties", {}).items()
    }


def message_for(body: Json) -> Json:
    """The message that answers a request."""
    last, tools, form = body["messages"][-1], body.get("tools"), body.get("response_format") or {}
    if last["role"] == "tool" and (body.get("tool_choice") or "auto") == "auto":
        if form.get("type") == "json_schema":
            return {"content": json.dumps(filled(form["json_schema"]["schema"]))}
        return {"content": AFTER_TOOL}
    if tools and body.get("tool_choice") != "none":
        function = tools[0]["function"]
        call = {"name": function["name"], "arguments": json.dumps(filled(function.get("parameters") or {}))}
        return {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": call}]}
    if form.get("type") == "json_schema":
        return {"content": json.dumps(filled(form["json_schema"]["schema"]))}
    return {"content": ANSWER}


def deltas(message: Json) -> Iterator[Json]:
    """The message in pieces, as engines stream it."""
    yield {"role": "assistant", "content": ""}
    for name in ("reasoning_content", "content"):
        text = message.get(name) or ""
        for start in range(0, len(text), 7):
            yield {name: text[start : start + 7]}
    for index, call in enumerate(message.get("tool_calls", ())):
        arguments = call["function"]["arguments"]
        begun = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield {"tool_calls": [begun]}
        for start in range(0, len(arguments), 5):
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[start : start + 5]}}]}


class HelpfulEngine:
    """`asked` holds the bodies it got, `answer` gives the message to each."""

    def __init__(self, answer: Callable[[Json], Json]) -> None:
        self.asked: list[Json] = []
        self._answer = answer
        self.url = ""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.asked.append(body)
        message = self._answer(body)
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        frame = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
            answer = {**frame, "object": "chat.completion", "choices": [choice], "usage": USAGE}
            return web.json_response(answer)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        frame["object"] = "chat.completion.chunk"
        for delta in deltas(message):
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            await write(response, {**frame, "choices": [choice]})
        await write(response, {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            await write(response, {**frame, "choices": [], "usage": USAGE})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": []})


async def write(response: web.StreamResponse, event: Json) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


@asynccontextmanager
async def helpful_engine(answer: Callable[[Json], Json] = message_for) -> AsyncIterator[HelpfulEngine]:
    """A running engine."""
    engine = HelpfulEngine(answer)
    routes = {"POST /v1/chat/completions": engine.chat, "GET /v1/models": engine.models}
    async with serving(app_of(routes)) as root:
        engine.url = f"{root}/v1"
        yield engine
