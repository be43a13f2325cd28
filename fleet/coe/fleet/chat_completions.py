"""Chat completions that are made here: what a request asks, and a text as its answer, whole or as a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

from coe.base.json_text import to_json
from coe.fleet.backend import BackendRequest, BackendResponse, chunks_of


def last_question(body: Mapping[str, object]) -> str:
    """Text of the last user message; list content gives its text parts."""
    for message in reversed(cast("list[dict[str, object]]", body.get("messages") or [])):
        content = message.get("content")
        if message.get("role") == "user" and isinstance(content, str):
            return content
        if message.get("role") == "user" and isinstance(content, list):
            return " ".join(str(part["text"]) for part in content if "text" in part)
    return ""


def wants_usage(body: Mapping[str, object]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def response_of(name: str, text: str, request: BackendRequest) -> BackendResponse:
    """An answer that took no tokens, by a model of that name, as a stream where that is asked for."""
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


def event(value: Mapping[str, object]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"
