"""An engine on a real socket that answers as scripted, on any path, and notes what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.served_app import app_of, serving

Json = dict[str, Any]
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "total_tokens": 37,
    "prompt_tokens_details": {"cached_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def chunk(finish_reason: str | None = None, **delta: Any) -> Json:
    """An event of a streamed chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "engine-model", "choices": [choice]}


def call(index: int, arguments: str, *, id: str | None = None, name: str | None = None) -> Json:
    """A piece of a call of a tool."""
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"index": index, "function": function} | ({"id": id, "type": "function"} if id else {})


def completion(finish_reason: str = "stop", **message: Any) -> Json:
    """A whole chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    frame = {"id": "c1", "object": "chat.completion", "created": 1, "model": "engine-model"}
    return {**frame, "choices": [choice], "usage": USAGE}


TEXT = (chunk(role="assistant", content=""), chunk(content="It is "), chunk(content="sunny."), chunk("stop"))
THOUGHT = (chunk(reasoning_content="Let me "), chunk(reasoning_content="see."))
CALLS = (
    chunk(tool_calls=[call(0, "", id="call_a", name="get_weather")]),
    chunk(tool_calls=[call(0, '{"city": ')]),
    chunk(tool_calls=[call(0, '"Bern"}')]),
    chunk(tool_calls=[call(1, '{"city": "Chur"}', id="call_b", name="get_weather")]),
    chunk("tool_calls"),
)
SPENT = {**chunk(), "choices": [], "usage": USAGE}


def events(*values: Json, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values) + end


@dataclass
class Scripted:
    """`answers` by path: JSON, or the bytes of a stream. Each is a list, taken in order; the last one repeats."""

    answers: dict[str, list[Json | bytes]]
    asked: list[tuple[str, Json]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    url: str = ""
    status: int = 404  # of paths without a script

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/v1/").lstrip("/")
        self.asked.append((path, json.loads(await request.read())))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        script = self.answers.get(path)
        if not script:
            return web.json_response({"error": {"message": f"no {path}"}}, status=self.status)
        found = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(found, dict):
            return web.json_response(found)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for start in range(0, len(found), 50):  # cut anywhere
            await response.write(found[start : start + 50])
        return response

    async def models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": []})

    @property
    def bodies(self) -> list[Json]:
        return [body for _, body in self.asked]


@asynccontextmanager
async def scripted(**answers: Json | bytes | Sequence[Json | bytes]) -> AsyncIterator[Scripted]:
    """A running engine. Paths are given with `__` in place of slashes."""
    lists = {
        name.replace("__", "/"): [*answer] if isinstance(answer, list | tuple) else [answer]
        for name, answer in answers.items()
    }
    engine = Scripted(lists)
    async with serving(app_of({"GET /v1/models": engine.models, "POST /{path:.*}": engine.answer})) as root:
        engine.url = f"{root}/v1"
        yield engine
