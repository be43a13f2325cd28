"""Chat completions that are made here: what a request asks, and a text as its answer, whole or as a stream."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from coe.base.errors import AbstainedError
from coe.base.json_text import to_json
from coe.fleet.calls.backend import BackendRequest, BackendResponse, Unconnected, chunks_of

WORD = re.compile(r"\s*\S+|\s+$")


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


class TextBackend(Unconnected):
    """An expert whose answers are texts that are made in this process, and cost nothing.

    Args:
        answer: gives the text for a request's body; None leaves the request to the next expert.
        delay_s: wait before an answer, and before each word of a stream.
        counts_words: usage is their number, instead of 0.
    """

    def __init__(
        self,
        name: str,
        answer: Callable[[Mapping[str, object]], str | None],
        *,
        delay_s: float = 0.0,
        counts_words: bool = False,
    ) -> None:
        self._name, self._answer = name, answer
        self._delay_s, self._counts_words = delay_s, counts_words

    async def send(self, request: BackendRequest) -> BackendResponse:
        text = self._answer(request.body)
        if text is None:
            raise AbstainedError(f"{self._name} has no answer to this request")
        answer = completion(self._name, text, request, tokens=len(text.split()) if self._counts_words else 0)
        return as_response(answer, request, self._paced, by_word=True)

    async def _paced(self, pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            await asyncio.sleep(self._delay_s)
            yield piece


def completion(name: str, text: str, request: BackendRequest, *, tokens: int = 0) -> dict[str, Any]:
    """The answer of a model of that name to a question of as many tokens as the answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens}
    about = {"id": f"chatcmpl-{request.request_id}", "object": "chat.completion", "created": int(time.time())}
    return {**about, "model": name, "choices": [choice], "usage": usage}


def as_response(
    answer: Mapping[str, Any],
    request: BackendRequest,
    paced: Callable[[Iterable[bytes]], AsyncGenerator[bytes, None]] = chunks_of,
    *,
    by_word: bool = False,
) -> BackendResponse:
    """A chat completion as a stream where that is asked for; `paced` gives the pieces of the body."""
    if request.is_stream:
        stream = paced(frames(answer, wants_usage(request.body), by_word=by_word))
        return BackendResponse(200, stream, {"content-type": "text/event-stream"})
    return BackendResponse(200, paced([to_json(answer)]), {"content-type": "application/json"})


def frames(answer: Mapping[str, Any], has_usage: bool, *, by_word: bool = False) -> Iterator[bytes]:
    """The events of a stream that tells a whole answer: each message in one piece or by the words of its text,
    its finish reason, the usage, the end mark. Raises TypeError, LookupError or ValueError where it is not a chat
    completion."""
    frame = {name: answer[name] for name in ("id", "created", "model", "system_fingerprint") if name in answer}
    frame["object"] = "chat.completion.chunk"
    for number, choice in enumerate(answer["choices"]):
        message, index = dict(choice["message"]), choice.get("index", number)
        if message.get("tool_calls"):
            message["tool_calls"] = [{"index": place, **call} for place, call in enumerate(message["tool_calls"])]
        deltas = [message]
        if by_word:
            first, *words = WORD.findall(message["content"]) or [""]
            deltas = [{**message, "content": first}, *({"content": word} for word in words)]
        for delta in deltas:
            shown = {"index": index, "delta": delta, "finish_reason": None}
            if "logprobs" in choice:
                shown["logprobs"] = choice["logprobs"]
            yield event({**frame, "choices": [shown]})
        yield event({**frame, "choices": [{"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}]})
    if has_usage and answer.get("usage"):
        yield event({**frame, "choices": [], "usage": answer["usage"]})
    yield b"data: [DONE]\n\n"


def event(value: Mapping[str, object]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"
