"""Answers of /v1/responses: an expert's chat completion as a response and its events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from coe.gateway.chat.adapters.turn import CALL, REASONING, REFUSAL, TEXT, Part, Step, Turn
from coe.gateway.exchange import answer_id
from coe.gateway.http_errors import ApiError
from coe.router.config.gateway import field_names
from coe.router.prices.usage import READ, WRITTEN, usage_of

if TYPE_CHECKING:
    from coe.gateway.chat.adapters.adapter import Json
    from coe.gateway.chat_request import ChatRequest

ECHOED = field_names(
    "instructions max_output_tokens metadata parallel_tool_calls reasoning temperature text tool_choice tools top_p "
    "truncation user safety_identifier service_tier prompt_cache_key"
)
"""Fields of a request that its response repeats."""
DEFAULTS: Json = {
    "metadata": {},
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "truncation": "disabled",
}
LAST = ("response.completed", "response.incomplete", "response.failed")
JOINT = "__"
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesAnswer:
    """The events of one response, and the response that they add up to."""

    def __init__(self, chat: ChatRequest, decision_id: str) -> None:
        self._asked: Json = {} if chat.native is None else dict(chat.native.body)
        self._turn = Turn()
        self._id, self._created_at = answer_id("resp_", decision_id), int(time.time())
        self._sent = 0
        self._grouped = {
            joined_name(tool | {"namespace": group["name"]}): {"name": tool["name"], "namespace": group["name"]}
            for group in self._asked.get("tools") or ()
            if group.get("type") == "namespace"
            for tool in group.get("tools") or ()
            if tool.get("type") == "function"
        }
        self._key = secrets.token_hex(8)  # of the ids of items

    def read(self, event: Mapping[str, Any]) -> Iterator[Json]:
        if not self._sent:
            self._turn.model = str(event.get("model") or "")
            for name in ("response.created", "response.in_progress"):
                yield self._event(name, response=self._response("in_progress"))
        for step in self._turn.read(event):
            yield from self._step(step)

    def end(self) -> Iterator[Json]:
        if not self._sent:
            yield from self.read({})
        for step in self._turn.close():
            yield from self._step(step)
        status = "incomplete" if self._turn.finish_reason in INCOMPLETE else "completed"
        yield self._event(f"response.{status}", response=self._response(status))

    def fail(self, error: ApiError) -> Iterator[Json]:
        if not self._sent:
            yield from self.read({})
        response = self._response("failed") | {
            "error": {"code": error.code or "server_error", "message": error.message}
        }
        yield self._event("response.failed", response=response)

    def whole(self, answer: Mapping[str, Any]) -> Json:
        for _ in self._turn.read(answer):
            pass
        return self._response("incomplete" if self._turn.finish_reason in INCOMPLETE else "completed")

    def _event(self, kind: str, /, **values: Any) -> Json:
        self._sent += 1
        return {"type": kind, "sequence_number": self._sent - 1, **values}

    def _step(self, step: Step) -> Iterable[Json]:
        part = step.part
        at = {"item_id": self._item_id(part), "output_index": part.number}
        if step.what == "open":
            yield self._event(
                "response.output_item.added", output_index=part.number, item=self._item(part, "in_progress", False)
            )
            if part.kind != CALL:
                yield self._event("response.content_part.added", **at, content_index=0, part=content_part(part, ""))
        elif step.what == "add":
            yield self._event(f"{EVENT_OF[part.kind]}.delta", **at, **text_place(part), delta=step.text)
        else:
            name = {CALL: "arguments", REFUSAL: "refusal"}.get(part.kind, "text")
            named = self._named(part) if part.kind == CALL else {}
            yield self._event(f"{EVENT_OF[part.kind]}.done", **at, **text_place(part), **named, **{name: part.text})
            if part.kind != CALL:
                yield self._event(
                    "response.content_part.done", **at, content_index=0, part=content_part(part, part.text)
                )
            yield self._event("response.output_item.done", output_index=part.number, item=self._item(part, "completed"))

    def _item_id(self, part: Part) -> str:
        prefix = {CALL: "fc", REASONING: "rs"}.get(part.kind, "msg")
        return f"{prefix}_{self._key}{part.number:04x}"

    def _named(self, part: Part) -> Json:
        """The name of a called function, and of its group."""
        return self._grouped.get(part.name) or {"name": part.name}

    def _item(self, part: Part, status: str, has_text: bool = True) -> Json:
        item: Json = {"id": self._item_id(part), "status": status}
        if part.kind == CALL:
            arguments = part.text if has_text else ""
            return item | {"type": "function_call", "call_id": part.id, "arguments": arguments, **self._named(part)}
        content = [content_part(part, part.text)] if has_text else []
        if part.kind == REASONING:
            return item | {"type": "reasoning", "summary": [], "content": content}
        return item | {"type": "message", "role": "assistant", "content": content}

    def _response(self, status: str) -> Json:
        asked, turn, is_over = self._asked, self._turn, status != "in_progress"
        reason = INCOMPLETE.get(turn.finish_reason or "") if status == "incomplete" else None
        given = {name: asked.get(name) if asked.get(name) is not None else DEFAULTS.get(name) for name in ECHOED}
        return given | {
            "id": self._id,
            "object": "response",
            "created_at": self._created_at,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "model": turn.model,
            "output": [self._item(part, "completed") for part in turn.parts] if is_over else [],
            "previous_response_id": None,
            "store": False,
            "usage": self._usage() if is_over else None,
        }

    def _usage(self) -> Json | None:
        if not self._turn.usage:
            return None
        usage = usage_of(self._turn.usage)
        return {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.of(READ), "cache_write_tokens": usage.of(WRITTEN)},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.of(("reasoning",))},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }


def joined_name(function: Mapping[str, Any]) -> str:
    """The name of a function in a chat request, which knows no groups."""
    group, name = function.get("namespace"), function.get("name")
    return f"{group}{JOINT}{name}" if isinstance(group, str) and group else str(name)


EVENT_OF = {
    TEXT: "response.output_text",
    REASONING: "response.reasoning_text",
    REFUSAL: "response.refusal",
    CALL: "response.function_call_arguments",
}


def content_part(part: Part, text: str) -> Json:
    if part.kind == TEXT:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "refusal", "refusal": text} if part.kind == REFUSAL else {"type": "reasoning_text", "text": text}


def text_place(part: Part) -> Json:
    """The fields of an event that say where in its item a text is."""
    if part.kind == CALL:
        return {}
    return {"content_index": 0, "logprobs": []} if part.kind == TEXT else {"content_index": 0}


def as_chat(event: Mapping[str, Any]) -> Json:
    """An event, or a whole response, in the terms of a chat completion."""
    if event.get("object") == "response":
        return response_as_chat(event)
    kind = event.get("type")
    if kind in LAST and isinstance(event.get("response"), dict):
        return response_as_chat(event["response"]) | {"done": True}
    if kind == "error":
        return {"error": event.get("error") or event}
    name = {EVENT_OF[TEXT]: "content", EVENT_OF[REASONING]: "reasoning_content", EVENT_OF[CALL]: "tool_calls"}.get(
        str(kind).removesuffix(".delta")
    )
    return {} if name is None else {"choices": [{"delta": {name: event.get("delta")}}]}


def response_as_chat(response: Mapping[str, Any]) -> Json:
    output = [item for item in response.get("output") or () if isinstance(item, dict)]
    texts = [
        str(part.get("text") or "")
        for item in output
        if item.get("type") == "message"
        for part in item.get("content") or ()
        if isinstance(part, dict)
    ]
    reason = "tool_calls" if any(item.get("type") == "function_call" for item in output) else "stop"
    if response.get("status") == "incomplete":
        why = (response.get("incomplete_details") or {}).get("reason")
        reason = next((name for name, value in INCOMPLETE.items() if value == why), "length")
    choice = {"message": {"content": "".join(texts)}, "finish_reason": reason}
    found: Json = {"choices": [choice], "usage": response.get("usage")}
    if response.get("error") is not None:
        found["error"] = response["error"]
    return found
