"""An expert that is not a language model, in this process: it answers a plain question of one message, or abstains."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from typing import Any, cast

from pydantic import Field

from base.json_text import to_json
from fleet.backend import BackendRequest, BackendResponse, ChatBackend, Unconnected
from fleet.builtins import Builtin
from fleet.wires.echo import event, last_question, wants_usage
from router import plugins
from router.builtins import ABSTAINED, ABSTAINED_STATUS
from router.expert_config import Flag
from router.section import Section

FAMILY = "fleet.builtins"

HARMLESS = {
    "model",
    "messages",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "user",
    "metadata",
}
HARMLESS |= {"max_tokens", "max_completion_tokens", "frequency_penalty", "presence_penalty", "store", "service_tier"}
"""Fields of a request that a right answer satisfies, whatever they say. Any other asks for more than that."""


class Options(Section):
    """The kind of expert, its settings, and its name in answers."""

    kind: str = Field(min_length=1, description="file of fleet/builtins")
    name: str = Field(default="builtin", min_length=1)
    params: dict[str, Flag] = Field(default_factory=dict, description="options of the kind")


EXAMPLES = (Options(kind="refuse", params={"sentence": "hello, I cannot help with this"}), Options(kind="calculator"))


def inner(options: Options) -> tuple[plugins.Inner, ...]:
    return (plugins.Inner("params", FAMILY, options.kind, options.params),)


def build(options: Options) -> ChatBackend:
    return BuiltinBackend(options.name, plugins.build(FAMILY, options.kind, options.params))


class BuiltinBackend(Unconnected):
    """Costs nothing: usage is 0."""

    def __init__(self, name: str, builtin: Builtin) -> None:
        self._name, self._builtin = name, builtin

    def answer_to(self, body: Mapping[str, object]) -> str | None:
        """The answer to a chat request; None where the expert abstains."""
        messages = cast("list[Mapping[str, object]]", body.get("messages"))
        asks_more = any(value not in (None, [], {}) for name, value in body.items() if name not in HARMLESS)
        if asks_more or len(messages) != 1 or messages[0].get("role") != "user":
            return None
        text = last_question(body)
        return self._builtin.answer(text) if text else None

    async def send(self, request: BackendRequest) -> BackendResponse:
        """An abstention is an answer with status 422."""
        text = self.answer_to(request.body)
        if text is None:
            error = {"message": f"expert {self._name} abstains", "type": "invalid_request_error", "param": None}
            body = to_json({"error": {**error, "code": ABSTAINED}})
            return BackendResponse(ABSTAINED_STATUS, chunks_of([body]), {"content-type": "application/json"})
        return response_of(self._name, text, request)


NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def response_of(name: str, text: str, request: BackendRequest) -> BackendResponse:
    """A text as the answer of an expert that needs no tokens."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    answer = {"id": f"chatcmpl-{request.request_id}", "object": "chat.completion", "created": int(time.time())}
    answer |= {"model": name, "choices": [choice], "usage": NO_TOKENS}
    if request.is_stream:
        stream = chunks_of(frames(answer, wants_usage(request.body)))
        return BackendResponse(200, stream, {"content-type": "text/event-stream"})
    return BackendResponse(200, chunks_of([to_json(answer)]), {"content-type": "application/json"})


def frames(answer: Mapping[str, Any], has_usage: bool) -> Iterator[bytes]:
    """The events of a stream that tells a whole answer: each message in one piece, its finish reason, the usage, the
    end mark. Raises TypeError, LookupError or ValueError where it is not a chat completion."""
    frame = {name: answer[name] for name in ("id", "created", "model", "system_fingerprint") if name in answer}
    frame["object"] = "chat.completion.chunk"
    for number, choice in enumerate(answer["choices"]):
        delta, index = dict(choice["message"]), choice.get("index", number)
        if delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(delta["tool_calls"])]
        shown = {"index": index, "delta": delta, "logprobs": choice.get("logprobs"), "finish_reason": None}
        yield event({**frame, "choices": [shown]})
        yield event({**frame, "choices": [{"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}]})
    if has_usage and answer.get("usage"):
        yield event({**frame, "choices": [], "usage": answer["usage"]})
    yield b"data: [DONE]\n\n"


async def chunks_of(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece
