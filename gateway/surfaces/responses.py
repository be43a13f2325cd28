"""POST /v1/responses, without storage: each request holds the whole conversation, and no answer is kept."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.answer_reader import EndMark
from gateway.body_fields import count, flag, wrong
from gateway.chat_fields import listed
from gateway.http_errors import ApiError
from gateway.surfaces.reading import (
    Fields,
    Reading,
    a_text,
    add_system,
    add_text,
    an_object,
    assistant_turn,
    call_message,
    content_of,
    objects,
    unknown_kind,
)
from gateway.surfaces.surface import Answer, Json, named_frame
from gateway.surfaces.turn import CALL, REASONING, REFUSAL, TEXT, Part, Step, Turn
from gateway.wire import ChatRequest, Native
from router.config import GatewayConfig, Wire

STATELESS = "nothing is stored here: send the whole conversation as 'input'"
FIELDS = Fields(
    same=listed(
        "model stream temperature top_p parallel_tool_calls user metadata safety_identifier service_tier "
        "prompt_cache_key prompt_cache_retention"
    ),
    read=listed(
        "input instructions max_output_tokens tools tool_choice text reasoning include store stream_options "
        "client_metadata"
    ),
    native={
        "access_programs": (),
        "context_management": ([],),
        "image": (),
        "max_tool_calls": (),
        "moderation": (),
        "prompt_cache_options": (),
        "top_logprobs": (0,),
        "truncation": ("disabled",),
    },
    refused={
        "previous_response_id": STATELESS,
        "conversation": STATELESS,
        "prompt": "stored prompts are not kept here: send 'instructions' and 'input'",
        "background": "answers are not kept here; allowed: false",
    },
)
ECHOED = listed(
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
FREE_INCLUDES = frozenset({"reasoning.encrypted_content"})
"""Reasoning comes in the clear instead, and is taken back so."""

LAST = ("response.completed", "response.incomplete", "response.failed")
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesSurface:
    """/v1/responses."""

    end_mark = EndMark(b"event", *(name.encode() for name in LAST))

    def request(self, body: Mapping[str, Any], bounds: GatewayConfig, headers: Mapping[bytes, bytes]) -> ChatRequest:
        reading = Reading(Wire.RESPONSES, body, bounds)
        reading.take(FIELDS)
        flag(body, "store")
        reading.put("max_completion_tokens", count(body, "max_output_tokens", most=bounds.limits.max_output_tokens))
        for name in body.get("include") or ():
            if name not in FREE_INCLUDES:
                reading.lose(f"include ({name})")
        read_text_options(reading)
        reading.put("reasoning_effort", an_object(body.get("reasoning"), "reasoning").get("effort"))
        reading.put(
            "tools", [chat_tool(reading, tool, i) for i, tool in enumerate(objects(body.get("tools"), "tools"))] or None
        )
        read_tool_choice(reading)
        reading.chat["messages"] = messages_of(reading)
        return reading.done(Native(Wire.RESPONSES, {**body, "store": False}, as_chat, "max_output_tokens"))

    def answer(self, chat: ChatRequest) -> Answer:
        return ResponsesAnswer(chat)

    def frame(self, event: Json) -> bytes:
        return named_frame(event)

    def error(self, error: ApiError) -> bytes:
        return error.body

    def error_event(self, error: ApiError) -> bytes:
        values = {"code": error.code, "message": error.message, "param": error.param, "sequence_number": 0}
        return named_frame({"type": "error", **values})


def read_text_options(reading: Reading) -> None:
    """`text`: the form of the answer and how long-winded it is."""
    options = an_object(reading.body.get("text"), "text")
    reading.put("verbosity", options.get("verbosity"))
    form = an_object(options.get("format"), "text.format")
    kind = form.get("type", "text")
    if kind == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        reading.put("response_format", {"type": kind, "json_schema": schema})
    elif kind == "json_object":
        reading.put("response_format", form)
    elif kind != "text":
        raise unknown_kind(kind, "text.format.type", "text, json_object, json_schema")


def chat_tool(reading: Reading, tool: Mapping[str, Any], number: int) -> Json:
    """A function as chat requests have it; others are counted as a loss."""
    if tool.get("type") != "function":
        reading.lose(f"tools[{number}].type ({tool.get('type')!s:.40})")
        return {"type": "function", "function": {"name": str(tool.get("name") or tool.get("type"))[:64]}}
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}


def read_tool_choice(reading: Reading) -> None:
    choice = reading.body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function":
        reading.put("tool_choice", {"type": "function", "function": {"name": a_text(choice, "name", "tool_choice")}})
    elif isinstance(choice, dict):
        reading.lose("tool_choice.type")
    else:
        reading.put("tool_choice", choice)


def messages_of(reading: Reading) -> list[Json]:
    """The conversation. Raises ApiError naming an item that is not valid."""
    messages: list[Json] = []
    if reading.body.get("instructions") is not None:
        add_system(messages, a_text(reading.body, "instructions", ""))
    given = reading.body.get("input")
    if not given:
        wrong("input", reading.body, "a text or a list of items")
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for number, item in enumerate(objects(given, "input")):
        add_item(reading, messages, item, f"input[{number}]")
    return messages


def add_item(reading: Reading, messages: list[Json], item: Mapping[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        add_message(reading, messages, item, where)
    elif kind == "function_call":
        names = (a_text(item, name, where) for name in ("call_id", "name", "arguments"))
        call_message(assistant_turn(messages), *names)
    elif kind == "function_call_output":
        output = item.get("output")
        content = output if isinstance(output, str) else content_of(chat_parts(reading, output, f"{where}.output"))
        messages.append({"role": "tool", "tool_call_id": a_text(item, "call_id", where), "content": content})
    elif kind == "reasoning":
        read_reasoning(reading, messages, item, where)
    elif kind == "item_reference":
        raise unknown_kind(kind, f"{where}.type", f"the item itself; {STATELESS}")
    else:
        reading.lose(f"{where}.type ({kind!s:.40})")


def add_message(reading: Reading, messages: list[Json], item: Mapping[str, Any], where: str) -> None:
    role, content = a_text(item, "role", where), item.get("content")
    if role not in ("user", "assistant", "system", "developer"):
        raise unknown_kind(role, f"{where}.role", "user, assistant, system, developer")
    said = content if isinstance(content, str) else content_of(chat_parts(reading, content, f"{where}.content"))
    if role == "user":
        messages.append({"role": role, "content": said})
    elif not isinstance(said, str):
        raise unknown_kind("an image", f"{where}.content", f"text in a message of role {role}")
    elif role == "assistant":
        add_text(assistant_turn(messages), "content", said)
    else:
        add_system(messages, said)


def chat_parts(reading: Reading, content: object, where: str) -> list[Json]:
    """The parts of a message or of a tool's output, as chat requests have them."""
    found: list[Json] = []
    for number, part in enumerate(objects(content, where)):
        place, kind = f"{where}[{number}]", part.get("type")
        if kind in ("input_text", "output_text", "text"):
            found.append({"type": "text", "text": a_text(part, "text", place)})
        elif kind == "refusal":
            found.append({"type": "text", "text": a_text(part, "refusal", place)})
        elif kind == "input_image" and part.get("image_url") is not None:
            image = {"url": a_text(part, "image_url", place)}
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            found.append({"type": "image_url", "image_url": image | detail})
        elif kind in ("input_image", "input_file", "input_audio"):
            reading.lose(f"{place}.type ({kind})")
        else:
            raise unknown_kind(kind, f"{place}.type", "input_text, output_text, refusal, input_image, input_file")
    return found


def read_reasoning(reading: Reading, messages: list[Json], item: Mapping[str, Any], where: str) -> None:
    """Gives an expert's reasoning back to it; what only the engine that encrypted it can read is a loss."""
    texts = objects(item.get("content"), f"{where}.content") or objects(item.get("summary"), f"{where}.summary")
    if texts:
        said = "\n".join(a_text(each, "text", where) for each in texts)
        add_text(assistant_turn(messages), "reasoning_content", said)
    elif item.get("encrypted_content"):
        reading.lose(f"{where}.encrypted_content")


class ResponsesAnswer:
    """The events of one response, and the response that they add up to."""

    def __init__(self, chat: ChatRequest) -> None:
        self._asked = chat.native.body if chat.native is not None else {}
        self._turn = Turn()
        self._id, self._created_at = f"resp_{secrets.token_hex(16)}", int(time.time())
        self._sent = 0
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
            named = {"name": part.name} if part.kind == CALL else {}
            yield self._event(f"{EVENT_OF[part.kind]}.done", **at, **text_place(part), **named, **{name: part.text})
            if part.kind != CALL:
                yield self._event(
                    "response.content_part.done", **at, content_index=0, part=content_part(part, part.text)
                )
            yield self._event("response.output_item.done", output_index=part.number, item=self._item(part, "completed"))

    def _item_id(self, part: Part) -> str:
        prefix = {CALL: "fc", REASONING: "rs"}.get(part.kind, "msg")
        return f"{prefix}_{self._key}{part.number:04x}"

    def _item(self, part: Part, status: str, has_text: bool = True) -> Json:
        item: Json = {"id": self._item_id(part), "status": status}
        if part.kind == CALL:
            arguments = part.text if has_text else ""
            return item | {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": arguments}
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
        turn = self._turn
        if not turn.usage:
            return None
        read, written = turn.count("prompt_tokens"), turn.count("completion_tokens")
        return {
            "input_tokens": read,
            "input_tokens_details": {
                "cached_tokens": turn.count("cached_tokens", "prompt_tokens_details"),
                "cache_write_tokens": 0,
            },
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": turn.count("reasoning_tokens", "completion_tokens_details")},
            "total_tokens": read + written,
        }


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
    found: Json = {"choices": [{"message": {"content": "".join(texts)}, "finish_reason": reason}]}
    if response.get("error") is not None:
        found["error"] = response["error"]
    if isinstance(response.get("usage"), dict):
        usage = response["usage"]
        found["usage"] = {"prompt_tokens": usage.get("input_tokens"), "completion_tokens": usage.get("output_tokens")}
    return found
