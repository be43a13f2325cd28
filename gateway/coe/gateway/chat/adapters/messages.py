"""POST /v1/messages: Anthropic's API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coe.base.json_text import to_json
from coe.gateway.chat.adapters.adapter import Answer, EndMark, Json, NamedEvents
from coe.gateway.chat.adapters.messages_answer import MessagesAnswer, as_chat, error_values
from coe.gateway.chat.adapters.reading import STATELESS, Fields, Reading, a_text, an_object, content_of, objects
from coe.gateway.chat_request import ChatRequest, Native, count, typed, unknown_kind, wrong
from coe.gateway.http_errors import ApiError
from coe.router.config.expert import ClientApi
from coe.router.config.gateway import GatewayConfig, field_names

FIELDS = Fields(
    same=field_names("model stream temperature top_p"),
    read=field_names(
        "messages system max_tokens metadata stop_sequences thinking tools tool_choice output_config output_format "
        "cache_control"
    ),
    native={
        "billing_policy": (),
        "compaction": (),
        "container": (),
        "context_management": ({"edits": []},),
        "diagnostics": (),
        "fallback_credit_token": (),
        "fallbacks": ([],),
        "inference_geo": (),
        "mcp_servers": ([],),
        "service_tier": ("auto", "standard_only"),
        "speed": ("standard",),
        "user_profile_id": (),
    },
    refused={"thread": STATELESS, "structured_outputs": "engines of this API ignore it; allowed: output_config.format"},
)
KEPT_THINKING = {"type": "clear_thinking_20251015", "keep": "all"}
"""An edit of the context that changes nothing."""

EFFORTS = {"max": "xhigh"}
"""Names of an effort that chat requests have another word for."""

CHOICES = {"auto": "auto", "any": "required", "none": "none"}
BUDGETS = ((4096, "low"), (16384, "medium"))
"""The effort of a budget of thinking up to so many tokens; above, it is high."""


BILLING = "x-anthropic-billing-header:"
"""Claude Code's first system block. It is meant for Anthropic, and differs by conversation: before a prompt that is the
same in all of them, it would keep an engine from finding any of it in its prefix cache."""

PASSED_HEADERS = ("anthropic-version", "anthropic-beta")
MAX_HEADER_CHARS = 1000


class MessagesAdapter(NamedEvents):
    """/v1/messages."""

    end_mark = EndMark(b"event", b"message_stop")

    def request(self, body: Mapping[str, Any], bounds: GatewayConfig, headers: Mapping[bytes, bytes]) -> ChatRequest:
        reading = Reading(ClientApi.MESSAGES, without_free(body), bounds)
        reading.take(FIELDS)
        most = bounds.max_output_tokens
        limit = count(body, "max_tokens", most=most)
        if limit is None:
            wrong("max_tokens", body, f"a whole number from 1 to {most}")
        reading.put("max_completion_tokens", limit)
        reading.put("stop", typed(body, "stop_sequences", list, "a list of texts"))
        reading.put("user", an_object(body.get("metadata"), "metadata").get("user_id"))
        read_thinking(reading)
        tools = objects(body.get("tools"), "tools")
        reading.put("tools", [chat_tool(reading, tool, number) for number, tool in enumerate(tools)] or None)
        read_tool_choice(reading)
        read_messages(reading)
        return reading.done(Native(ClientApi.MESSAGES, body, as_chat, "max_tokens", headers=passed_headers(headers)))

    def answer(self, chat: ChatRequest, decision_id: str, request_id: str) -> Answer:
        return MessagesAnswer(chat, decision_id, request_id)

    def error(self, error: ApiError, request_id: str) -> bytes:
        return to_json(error_values(error, request_id))

    def error_event(self, error: ApiError, request_id: str) -> bytes:
        return self.frame(error_values(error, request_id))


def without_free(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request without edits of its context that change nothing."""
    management = body.get("context_management")
    if isinstance(management, dict) and isinstance(management.get("edits"), list):
        edits = [edit for edit in management["edits"] if edit != KEPT_THINKING]
        return {**body, "context_management": {**management, "edits": edits}}
    return body


def passed_headers(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """The client's headers that an engine of this API reads."""
    found = {name: headers.get(name.encode(), b"").decode("latin-1") for name in PASSED_HEADERS}
    return {name: text for name, text in found.items() if text.isprintable() and 0 < len(text) <= MAX_HEADER_CHARS}


def read_thinking(reading: Reading) -> None:
    """`thinking` and `output_config`: how much the expert may think, and the form of its answer."""
    config = an_object(reading.body.get("output_config"), "output_config")
    effort = config.get("effort")
    thinking = an_object(reading.body.get("thinking"), "thinking")
    kind, budget = thinking.get("type", "disabled"), thinking.get("budget_tokens")
    if kind not in ("enabled", "adaptive", "disabled"):
        raise unknown_kind(kind, "thinking.type", "enabled, adaptive, disabled")
    if kind == "enabled" and effort is None and isinstance(budget, int):
        effort = next((name for most, name in BUDGETS if budget <= most), "high")
    reading.put("reasoning_effort", EFFORTS.get(effort, effort) if isinstance(effort, str) else effort)
    form = an_object(config.get("format") or reading.body.get("output_format"), "output_config.format")
    if form:
        if form.get("type") != "json_schema":
            raise unknown_kind(form.get("type"), "output_config.format.type", "json_schema")
        schema = {"name": "answer", "schema": form.get("schema")}
        reading.put("response_format", {"type": "json_schema", "json_schema": schema})


def chat_tool(reading: Reading, tool: Mapping[str, Any], number: int) -> Json:
    """A tool as chat requests have it; those that Anthropic's models know by type are a loss."""
    where = f"tools[{number}]"
    if tool.get("type", "custom") != "custom":
        reading.lose(f"{where}.type ({tool['type']!s:.40})")
    for name in ("defer_loading", "input_examples"):
        if tool.get(name):
            reading.lose(f"{where}.{name}")
    function = {"name": a_text(tool, "name", where), "parameters": tool.get("input_schema")}
    names = ("description", "strict")
    return {"type": "function", "function": function | {name: tool[name] for name in names if name in tool}}


def read_tool_choice(reading: Reading) -> None:
    choice = an_object(reading.body.get("tool_choice"), "tool_choice")
    if not choice:
        return
    kind = choice.get("type")
    if kind == "tool":
        reading.put("tool_choice", {"type": "function", "function": {"name": a_text(choice, "name", "tool_choice")}})
    elif isinstance(kind, str) and kind in CHOICES:
        reading.put("tool_choice", CHOICES[kind])
    else:
        raise unknown_kind(kind, "tool_choice.type", f"tool, {', '.join(CHOICES)}")
    if choice.get("disable_parallel_tool_use"):
        reading.put("parallel_tool_calls", False)


def read_messages(reading: Reading) -> None:
    """The conversation. Raises ApiError naming a block that is not valid."""
    blocks = blocks_of(reading.body.get("system") or None, "system")
    if blocks and str(blocks[0].get("text")).startswith(BILLING):
        blocks = blocks[1:]
    if blocks:
        reading.add_system(all_text(reading, blocks, "system"))
    for number, message in enumerate(objects(reading.body.get("messages"), "messages")):
        where = f"messages[{number}]"
        role, content = a_text(message, "role", where), message.get("content")
        place = f"{where}.content"
        if role == "user":
            add_user(reading, blocks_of(content, place), place)
        elif role == "assistant":
            add_assistant(reading, blocks_of(content, place), place)
        elif role == "system":
            reading.add_system(all_text(reading, content, place))
        else:
            raise unknown_kind(role, f"{where}.role", "user, assistant, system")


def blocks_of(content: object, where: str) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else objects(content, where)


def all_text(reading: Reading, content: object, where: str) -> str:
    """Content that is text only."""
    said = content_of(list(chat_parts(reading, blocks_of(content, where), where)))
    if not isinstance(said, str):
        raise unknown_kind("an image", where, "text")
    return said


def chat_parts(reading: Reading, blocks: list[Json], where: str) -> Iterator[Json]:
    """The texts and images as the parts of a chat request; others are a loss."""
    for number, block in enumerate(blocks):
        place, kind = f"{where}[{number}]", block.get("type")
        if kind == "text":
            yield {"type": "text", "text": a_text(block, "text", place)}
        elif kind == "image" and (url := image_url(an_object(block.get("source"), f"{place}.source"), place)):
            yield {"type": "image_url", "image_url": {"url": url}}
        elif isinstance(kind, str):
            reading.lose(f"{place}.type ({kind:.40})")
        else:
            raise unknown_kind(kind, f"{place}.type", "text, image, tool_use, tool_result, thinking, ...")


def image_url(source: Mapping[str, Any], where: str) -> str | None:
    """The address of an image; None where it is a file that only Anthropic has."""
    kind = source.get("type")
    if kind == "url":
        return a_text(source, "url", f"{where}.source")
    if kind != "base64":
        return None
    media_type, data = (a_text(source, name, f"{where}.source") for name in ("media_type", "data"))
    return f"data:{media_type};base64,{data}"


def add_user(reading: Reading, blocks: list[Json], where: str) -> None:
    """Adds the results of tools, each a message of its own, then what the user says."""
    others = []
    for number, block in enumerate(blocks):
        if block.get("type") == "tool_result":
            reading.messages.append(tool_message(reading, block, f"{where}[{number}]"))
        else:
            others.append(block)
    parts = list(chat_parts(reading, others, where))
    if parts:
        reading.messages.append({"role": "user", "content": content_of(parts)})


def tool_message(reading: Reading, block: Mapping[str, Any], where: str) -> Json:
    """The result of a tool. A chat request says in words that it is an error."""
    given = block.get("content") or ""
    blocks = blocks_of(given, f"{where}.content")
    if block.get("is_error"):
        blocks = [{"type": "text", "text": "Error:"}, *blocks]
    content = content_of(list(chat_parts(reading, blocks, f"{where}.content")))
    return {"role": "tool", "tool_call_id": a_text(block, "tool_use_id", where), "content": content}


def add_assistant(reading: Reading, blocks: list[Json], where: str) -> None:
    reading.turn()
    for number, block in enumerate(blocks):
        place, kind = f"{where}[{number}]", block.get("type")
        if kind == "text":
            reading.add_text("content", a_text(block, "text", place))
        elif kind == "thinking":
            reading.add_text("reasoning_content", a_text(block, "thinking", place))
        elif kind == "tool_use":
            arguments = to_json(an_object(block.get("input"), f"{place}.input")).decode()
            reading.add_call(a_text(block, "id", place), a_text(block, "name", place), arguments)
        else:
            reading.lose(f"{place}.type ({kind!s:.40})")
