"""A fake expert: answers with the question. Usage counts words. For tests and for trying a configuration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

from pydantic import Field

from coe.base.json_text import to_json
from coe.fleet.backend import BackendRequest, BackendResponse, ChatBackend, Unconnected
from coe.fleet.chat_completions import event, last_question, wants_usage
from coe.router.section import Section


class Options(Section):
    """Answers of the fake."""

    model: str = Field(default="echo", min_length=1, description="what it calls itself in answers")
    delay_s: float = Field(default=0.0, ge=0, description="wait before the answer and before each word of a stream")


EXAMPLES = (Options(), Options(model="parrot", delay_s=0.001))


def build(options: Options) -> ChatBackend:
    return EchoBackend(options)


class EchoBackend(Unconnected):
    """Answers at once with the last user message."""

    def __init__(self, options: Options) -> None:
        self._options = options

    async def send(self, request: BackendRequest) -> BackendResponse:
        question = last_question(request.body)
        if request.is_stream:
            chunks = self._paced(stream_events(self._options.model, question, request))
            return BackendResponse(200, chunks, {"content-type": "text/event-stream"})
        chunks = self._paced(iter([json_answer(self._options.model, question, request.request_id)]))
        return BackendResponse(200, chunks, {"content-type": "application/json"})

    async def _paced(self, events: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
        for each in events:
            await asyncio.sleep(self._options.delay_s)
            yield each


def usage_of(text: str) -> dict[str, int]:
    words = len(text.split())
    return {"prompt_tokens": words, "completion_tokens": words, "total_tokens": 2 * words}


def json_answer(model: str, text: str, request_id: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    answer = {"object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": usage_of(text)}
    return to_json({"id": f"chatcmpl-{request_id}", **answer})


def stream_events(model: str, text: str, request: BackendRequest) -> Iterator[bytes]:
    """One event per word, then the finish reason, the usage where asked for, and the end mark."""
    frame: dict[str, object] = {"object": "chat.completion.chunk", "created": 0, "model": model}
    frame["id"] = f"chatcmpl-{request.request_id}"
    for i, word in enumerate(text.split()):
        delta = {"role": "assistant", "content": word} if i == 0 else {"content": f" {word}"}
        yield event({**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield event({**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if wants_usage(request.body):
        yield event({**frame, "choices": [], "usage": usage_of(text)})
    yield b"data: [DONE]\n\n"
