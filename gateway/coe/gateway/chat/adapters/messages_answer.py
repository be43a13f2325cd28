"""Answers of /v1/messages: an expert's chat completion as a message and its events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from coe.base.json_text import JsonError, from_json
from coe.gateway.chat.adapters.turn import CALL, REASONING, Part, Step, Turn
from coe.gateway.exchange import answer_id
from coe.gateway.http_errors import TOO_LONG, ApiError, type_of
from coe.router.prices.usage import READ, WRITTEN, usage_of

if TYPE_CHECKING:
    from coe.gateway.chat.adapters.adapter import Json
    from coe.gateway.chat_request import ChatRequest

STOP_REASONS = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
FINISH_REASONS = {reason: finish for finish, reason in STOP_REASONS.items() if finish != "function_call"}
ERROR_TYPES = {413: "request_too_large", 503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error"}
"""Types of errors that Anthropic's API has beside OpenAI's."""


def error_values(error: ApiError, request_id: str) -> Json:
    kind = ERROR_TYPES.get(error.status) or type_of(error.status)
    # There is no code in Anthropic's errors: Claude Code knows by these words that it has to shorten the conversation.
    words = "prompt is too long: " if error.code == TOO_LONG else ""
    values: Json = {"type": kind, "message": f"{words}{error.message}"}
    if error.param == "thread":  # then Anthropic's client sends the whole conversation instead
        values["details"] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    return {"type": "error", "error": values, "request_id": request_id}


class MessagesAnswer:
    """The events of one message, and the message that they add up to. An expert's reasoning is shown where the client
    enabled `thinking`."""

    def __init__(self, chat: ChatRequest, decision_id: str, request_id: str) -> None:
        asked: Mapping[str, Any] = chat.native.body if chat.native is not None else {}
        self._stops = [*(asked.get("stop_sequences") or ())]
        thinking = asked.get("thinking")
        self._shows_thinking = isinstance(thinking, dict) and thinking.get("type") != "disabled"
        self._turn = Turn()
        self._id, self._request_id = answer_id("msg_", decision_id), request_id
        self._places: dict[int, int] = {}  # of a part among the blocks that are shown

    def read(self, event: Mapping[str, Any]) -> Iterator[Json]:
        is_first = not self._turn.model
        steps = list(self._turn.read(event))
        if is_first:
            self._turn.model = self._turn.model or "unknown"
            yield {"type": "message_start", "message": self._message([]) | {"usage": self._usage()}}
            yield {"type": "ping"}
        for step in steps:
            yield from self._step(step)

    def end(self) -> Iterator[Json]:
        if not self._turn.model:
            yield from self.read({})
        for step in self._turn.close():
            yield from self._step(step)
        yield {"type": "message_delta", "delta": self._ending(), "usage": self._usage()}
        yield {"type": "message_stop"}

    def fail(self, error: ApiError) -> Iterator[Json]:
        yield error_values(error, self._request_id)

    def whole(self, answer: Mapping[str, Any]) -> Json:
        for _ in self._turn.read(answer):
            pass
        shown = (part for part in self._turn.parts if part.kind != REASONING or self._shows_thinking)
        return self._message([block(part) for part in shown]) | self._ending() | {"usage": self._usage()}

    def _step(self, step: Step) -> Iterator[Json]:
        part = step.part
        if part.kind == REASONING and not self._shows_thinking:
            return
        index = self._places.setdefault(part.number, len(self._places))
        if step.what == "open":
            yield {
                "type": "content_block_start",
                "index": index,
                "content_block": block(Part(part.kind, 0, part.id, part.name)),
            }
        elif step.what == "add":
            yield {"type": "content_block_delta", "index": index, "delta": delta(part, step.text)}
        else:
            if part.kind == REASONING:
                signature = {"type": "signature_delta", "signature": ""}
                yield {"type": "content_block_delta", "index": index, "delta": signature}
            yield {"type": "content_block_stop", "index": index}

    def _message(self, content: list[Json]) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._turn.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _ending(self) -> Json:
        stop = self._turn.stop if self._turn.stop in self._stops else None
        # OpenAI and vLLM say "stop" of a call that `tool_choice` named.
        has_calls = any(part.kind == CALL for part in self._turn.parts)
        reason = STOP_REASONS.get(self._turn.finish_reason or "", "tool_use" if has_calls else "end_turn")
        return {"stop_reason": "stop_sequence" if stop else reason, "stop_sequence": stop}

    def _usage(self) -> Json:
        usage = usage_of(self._turn.usage)
        read, written = usage.of(READ), usage.of(WRITTEN)
        return {
            "input_tokens": usage.prompt_tokens - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "output_tokens": usage.completion_tokens,
        }


def block(part: Part) -> Json:
    """A part of the answer as a block of content."""
    if part.kind == CALL:
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments_of(part.text)}
    if part.kind == REASONING:
        return {"type": "thinking", "thinking": part.text, "signature": ""}
    return {"type": "text", "text": part.text}


def delta(part: Part, text: str) -> Json:
    if part.kind == CALL:
        return {"type": "input_json_delta", "partial_json": text}
    return (
        {"type": "thinking_delta", "thinking": text} if part.kind == REASONING else {"type": "text_delta", "text": text}
    )


def arguments_of(text: str) -> Json:
    """The arguments of a call. An expert may have written what is no JSON object: then its text, under one name."""
    if not text.strip():
        return {}
    try:
        values = from_json(text.encode(), has_unique_keys=False)
    except JsonError:
        values = None
    return values if isinstance(values, dict) else {"invalid_arguments": text}


def as_chat(event: Mapping[str, Any]) -> Json:
    """An event, or a whole message, in the terms of a chat completion."""
    kind = event.get("type")
    if kind == "error":
        return {"error": event.get("error") or event}
    if kind == "message":
        texts = [str(each.get("text") or "") for each in event.get("content") or () if isinstance(each, dict)]
        choice = {"message": {"content": "".join(texts)}, "finish_reason": finish_reason(event)}
        return {"choices": [choice], "usage": event.get("usage")}
    if kind == "message_start":
        return {"usage": event["message"].get("usage")}
    if kind == "message_delta":
        return {"choices": [{"finish_reason": finish_reason(event.get("delta"))}], "usage": event.get("usage")}
    if kind == "message_stop":
        return {"done": True}
    found = event.get("delta")
    if kind != "content_block_delta" or not isinstance(found, dict):
        return {}
    more = found.get("thinking") or found.get("partial_json")
    return {"choices": [{"delta": {"content": found.get("text"), "reasoning_content": more}}]}


def finish_reason(values: object) -> str | None:
    reason = values.get("stop_reason") if isinstance(values, dict) else None
    return FINISH_REASONS.get(reason, "stop") if isinstance(reason, str) else None
