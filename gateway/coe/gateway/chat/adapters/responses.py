"""POST /v1/responses, without storage: each request holds the whole conversation, and no answer is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coe.gateway.chat.adapters.adapter import Answer, EndMark, Json, NamedEvents
from coe.gateway.chat.adapters.reading import STATELESS, Fields, Reading, a_text, an_object, content_of, objects
from coe.gateway.chat.adapters.responses_answer import LAST, ResponsesAnswer, as_chat, joined_name
from coe.gateway.chat_request import ChatRequest, Native, count, flag, typed, unknown_kind, wrong
from coe.gateway.http_errors import ApiError
from coe.router.config.expert import ClientApi
from coe.router.config.gateway import GatewayConfig, field_names

FIELDS = Fields(
    same=field_names(
        "model stream temperature top_p parallel_tool_calls user metadata safety_identifier service_tier "
        "prompt_cache_key prompt_cache_retention"
    ),
    read=field_names(
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
        "background_options": "answers are not kept here",
    },
)


FREE_INCLUDES = ("reasoning.encrypted_content",)
"""Reasoning comes in the clear instead, and is taken back so."""


class ResponsesAdapter(NamedEvents):
    """/v1/responses."""

    end_mark = EndMark(b"event", *(name.encode() for name in LAST))

    def request(self, body: Mapping[str, Any], bounds: GatewayConfig, headers: Mapping[bytes, bytes]) -> ChatRequest:
        reading = Reading(ClientApi.RESPONSES, body, bounds)
        reading.take(FIELDS)
        flag(body, "store")
        reading.put("max_completion_tokens", count(body, "max_output_tokens", most=bounds.max_output_tokens))
        for name in typed(body, "include", list, "a list of names") or ():
            if name not in FREE_INCLUDES:
                reading.lose(f"include ({name!s:.40})")
        read_text_options(reading)
        reading.put("reasoning_effort", an_object(body.get("reasoning"), "reasoning").get("effort"))
        reading.put("tools", list(chat_tools(reading, objects(body.get("tools"), "tools"), "tools")) or None)
        read_tool_choice(reading)
        read_input(reading)
        return reading.done(Native(ClientApi.RESPONSES, {**body, "store": False}, as_chat, "max_output_tokens"))

    def answer(self, chat: ChatRequest, decision_id: str, request_id: str) -> Answer:
        return ResponsesAnswer(chat, decision_id)

    def error_event(self, error: ApiError, request_id: str) -> bytes:
        values = {"code": error.code, "message": error.message, "param": error.param, "sequence_number": 0}
        return self.frame({"type": "error", **values})


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


def chat_tools(
    reading: Reading, tools: list[Json], where: str, group: Mapping[str, Any] | None = None
) -> Iterator[Json]:
    """Functions as chat requests have them, those of a group under both names; other tools are counted as a loss."""
    for number, tool in enumerate(tools):
        place, kind = f"{where}[{number}]", tool.get("type")
        if kind == "namespace" and group is None:
            a_text(tool, "name", place)
            yield from chat_tools(reading, objects(tool.get("tools"), f"{place}.tools"), f"{place}.tools", tool)
            continue
        if kind != "function" or tool.get("defer_loading"):
            reading.lose(f"{place}.{'defer_loading' if kind == 'function' else f'type ({kind!s:.40})'}")
            yield {"type": "function", "function": {"name": str(kind)[:64]}}  # never sent, but asks for tools
            continue
        a_text(tool, "name", place)
        function = {name: tool[name] for name in ("description", "parameters", "strict") if tool.get(name) is not None}
        function["name"] = joined_name(tool if group is None else {**tool, "namespace": group.get("name")})
        if group is not None:
            described = (group.get("description"), tool.get("description"))
            function["description"] = "\n".join(text for text in described if isinstance(text, str))
        yield {"type": "function", "function": function}


def read_tool_choice(reading: Reading) -> None:
    choice = reading.body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function":
        reading.put("tool_choice", {"type": "function", "function": {"name": a_text(choice, "name", "tool_choice")}})
    elif isinstance(choice, dict):
        reading.lose("tool_choice.type")
    else:
        reading.put("tool_choice", choice)


def read_input(reading: Reading) -> None:
    """The conversation. Raises ApiError naming an item that is not valid."""
    if reading.body.get("instructions") is not None:
        reading.add_system(a_text(reading.body, "instructions", ""))
    given = reading.body.get("input")
    if not given:
        wrong("input", reading.body, "a text or a list of items")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else objects(given, "input")
    for number, item in enumerate(items):
        add_item(reading, item, f"input[{number}]")


def add_item(reading: Reading, item: Mapping[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        add_message(reading, item, where)
    elif kind == "function_call":
        call_id, name, arguments = (a_text(item, field, where) for field in ("call_id", "name", "arguments"))
        name = joined_name({"name": name, "namespace": item.get("namespace")})
        reading.add_call(call_id, name, arguments)
    elif kind == "function_call_output":
        output = item.get("output")
        content = output if isinstance(output, str) else content_of(chat_parts(reading, output, f"{where}.output"))
        call_id = a_text(item, "call_id", where)
        reading.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
    elif kind == "reasoning":
        read_reasoning(reading, item, where)
    elif kind == "item_reference":
        raise unknown_kind(kind, f"{where}.type", f"the item itself; {STATELESS}")
    else:
        reading.lose(f"{where}.type ({kind!s:.40})")


def add_message(reading: Reading, item: Mapping[str, Any], where: str) -> None:
    role, content = a_text(item, "role", where), item.get("content")
    if role not in ("user", "assistant", "system", "developer"):
        raise unknown_kind(role, f"{where}.role", "user, assistant, system, developer")
    said = content if isinstance(content, str) else content_of(chat_parts(reading, content, f"{where}.content"))
    if role == "user":
        reading.messages.append({"role": role, "content": said})
    elif not isinstance(said, str):
        raise unknown_kind("an image", f"{where}.content", f"text in a message of role {role}")
    elif role == "assistant":
        reading.add_text("content", said)
    else:
        reading.add_system(said)


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


def read_reasoning(reading: Reading, item: Mapping[str, Any], where: str) -> None:
    """Gives an expert's reasoning back to it; what only the engine that encrypted it can read is a loss."""
    texts = objects(item.get("content"), f"{where}.content") or objects(item.get("summary"), f"{where}.summary")
    if texts:
        reading.add_text("reasoning_content", "\n".join(a_text(each, "text", where) for each in texts))
    elif item.get("encrypted_content"):
        reading.lose(f"{where}.encrypted_content")
