"""The chat request as the router needs it. Only routed fields are decoded; everything else passes untouched, if it is a
field that a chat may have, of an allowed type and within its bounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from typing import Any, NamedTuple, NoReturn, cast

from coe.base.errors import allowed_values, shorten
from coe.base.json_text import to_json
from coe.gateway.http_errors import ApiError, invalid
from coe.router.config.expert import ClientApi
from coe.router.config.gateway import (
    CONSTRAINING,
    ENTRIES,
    FIELDS,
    GUIDED,
    NUMBERS,
    OPENAI,
    SAMPLING,
    WHOLE_NUMBERS,
    GatewayConfig,
)
from coe.router.loop import LoopState
from coe.router.types import QueryFacts, ask_in, cap

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
BEGIN = "begin:"
"""Start of the identity of a conversation that its client did not name."""

IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
AUDIO_PARTS = frozenset({"input_audio", "audio_url"})
PART_TYPES = (
    IMAGE_PARTS
    | AUDIO_PARTS
    | {
        *(
            "text",
            "input_text",
            "refusal",
            "file",
            "input_file",
            "video_url",
            "thinking",
            "redacted_thinking",
            "reasoning",
        ),
        *("image_embeds", "audio_embeds", "document"),
    }
)
"""Parts of messages in OpenAI's API, and those that vLLM and litellm take beside them."""

SYSTEM_ROLES = frozenset({"system", "developer"})
MAX_SYSTEM_CHARS = 4000
"""Of a system prompt, in which a task is looked for."""

TOOL_ROLES = frozenset({"tool", "function"})
JSON_FORMATS = frozenset({"json_object", "json_schema"})

JSON_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),  # before numbers: True is an int
    ((int, float), "a number"),
    (str, "a string"),
    (list, "a list"),
    (dict, "an object"),
)


@dataclass(frozen=True, slots=True)
class Native:
    """A request as its client wrote it, where that was not a chat request.

    Args:
        losses: its fields that a chat request has no place for.
        as_chat: what an event or a whole answer of that API says, in the terms of a chat completion.
        limit: its field that bounds an answer.
        headers: of the client, for the expert.
        prompts: how many it holds.
        choices: answers that are written for it, at most.
    """

    api: ClientApi
    body: Mapping[str, object]
    as_chat: Callable[[Mapping[str, Any]], dict[str, Any]]
    limit: str
    losses: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    prompts: int = 1
    choices: int = 1

    def without_foreign_reasoning(self) -> Mapping[str, object]:
        """The body without reasoning that no vendor has signed or encrypted: experts that a chat request went to wrote
        it, and a vendor refuses what it did not sign. A message of nothing else goes with it."""
        field = {ClientApi.MESSAGES: "messages", ClientApi.RESPONSES: "input"}.get(self.api, "")
        items = self.body.get(field)
        if not isinstance(items, list):
            return self.body
        kept = []
        for item in items:
            content = item.get("content")
            if isinstance(content, list) and any(map(is_unsigned, content)):
                signed = [block for block in content if not is_unsigned(block)]
                kept += [{**item, "content": signed}] if signed else []
            elif not is_unsigned(item):
                kept.append(item)
        return {**self.body, field: kept}


class ChatRequest(NamedTuple):
    """A decoded request. `text` is the last human ask, capped, and `earlier` are those before it, newest first;
    `session` is what identifies the conversation. `native` goes to experts that speak its API, in place of `body`,
    which was translated from it. `client_params` is that of the policy."""

    body: Mapping[str, object]
    model: str
    is_stream: bool
    text: str
    facts: QueryFacts
    session: str
    native: Native | None = None
    earlier: tuple[str, ...] = ()
    system: str = ""
    client_params: bool = False

    @property
    def messages(self) -> list[dict[str, object]]:
        """Of the chat request, as they were checked."""
        return cast("list[dict[str, object]]", self.body["messages"])


def is_unsigned(part: object) -> bool:
    """Returns True for reasoning of Anthropic's API or of OpenAI's responses that its vendor could not know again."""
    marks = {"thinking": "signature", "reasoning": "encrypted_content"}
    return isinstance(part, dict) and part.get("type") in marks and not part.get(marks[part["type"]])


def json_object(values: object) -> dict[str, object]:
    """The value of a body if it is an object. Raises ApiError."""
    if not isinstance(values, dict):
        raise invalid(f"the body must be a JSON object, got {json_type(values)}", code="invalid_json")
    return values


def chat_request(body: Mapping[str, object], bounds: GatewayConfig) -> ChatRequest:
    """The chat request of a decoded body. Raises ApiError: 400 naming the field, its value and what is allowed."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        wrong("model", body, "a non-empty string such as 'auto'")
    body = checked_fields(body, bounds)
    messages = checked_messages(body, bounds.max_parts)
    facts = read_facts(body, messages)
    text, *earlier = last_asks(messages, bounds.max_text_chars, bounds.max_earlier + 1) or [""]
    return ChatRequest(
        body=body,
        model=model,
        is_stream=flag(body, "stream"),
        text=text,
        facts=facts,
        session=session_of(body, messages),
        earlier=tuple(earlier) if earlier else (),
        system=system_text(messages),
    )


def no_model(model: str, known: Collection[str], more: str = "") -> ApiError:
    """A 404 with the names there are, of the type that OpenAI gives it."""
    return ApiError(
        f"the model {shorten(model)} does not exist{more}{allowed_values(model[:80], known)}",
        status=404,
        code="model_not_found",
        param="model",
        error_type="invalid_request_error",
    )


def checked_messages(body: Mapping[str, object], max_parts: int) -> list[dict[str, object]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        wrong("messages", body, "a non-empty list of messages")
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise wrong_type(message, f"messages[{i}]", "an object")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise unknown_kind(role, f"messages[{i}].role", ", ".join(sorted(ROLES)))
        if not isinstance(message.get("content"), str):  # which it is nearly always
            check_content(message, f"messages[{i}].content", max_parts)
    return messages


def check_content(message: Mapping[str, object], where: str, max_parts: int) -> None:
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        return
    if not isinstance(content, list):
        raise wrong_type(content, where, "a string or a list of parts")
    if len(content) > max_parts:
        raise invalid(f"'{where}' has {len(content)} parts; allowed: at most {max_parts}", where)
    for k, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise invalid(f"'{where}[{k}]' must be an object with a 'type'", f"{where}[{k}]")
        if part["type"] not in PART_TYPES:
            raise unknown_kind(part["type"], f"{where}[{k}].type", ", ".join(sorted(PART_TYPES)))
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise wrong_type(part.get("text"), f"{where}[{k}].text", "a string")


def read_facts(body: Mapping[str, object], messages: list[dict[str, object]]) -> QueryFacts:
    """The demands of a request on its expert."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    tools = typed(body, "tools", list, "a list") or typed(body, "functions", list, "a list")
    form = typed(body, "response_format", dict, "an object") or {}
    turns, answers, prompt_chars = 0, 0, chars_of(tools)  # an agent's tools are most of its prompt
    media: set[object] = set()
    is_asked = False
    for message in messages:
        role = message["role"]
        turns += role == "user" and not is_asked  # agents put what they know of the folder in a message of its own
        answers += role == "assistant"
        is_asked = role == "user" or (is_asked and role != "assistant")
        content = message.get("content")
        if isinstance(content, str):  # which it is nearly always
            prompt_chars += len(content)
        else:
            prompt_chars += len(text_of(message))
            media |= {part["type"] for part in parts(message)}
        if "tool_calls" in message:
            prompt_chars += chars_of(message["tool_calls"])
    return QueryFacts(
        turns=turns,
        answers=answers,
        has_image=not media.isdisjoint(IMAGE_PARTS),
        has_audio=not media.isdisjoint(AUDIO_PARTS)
        or ("modalities" in body and "audio" in (typed(body, "modalities", list, "a list") or ())),
        loop=loop_of(messages) if messages[2:] and in_tool_loop(messages) else None,
        has_tools=bool(tools) and body.get("tool_choice") != "none",
        wants_json=form.get("type") in JSON_FORMATS,
        wants_logprobs=bool(body.get("logprobs")),
        constraints=CONSTRAINING.intersection(body),
        prompt_chars=prompt_chars,
        max_output_tokens=limit if isinstance(limit, int) else None,
    )


def chars_of(value: object) -> int:
    """The length of what a template writes as JSON: tools, and calls of them."""
    return len(to_json(value)) if value else 0


def loop_of(messages: list[dict[str, object]]) -> LoopState:
    from coe.router.loop import loop_state  # which a chat without tools does not need

    return loop_state(messages, text_of)


def in_tool_loop(messages: list[dict[str, object]]) -> bool:
    """Returns True where results of tools came since the last answer, whatever a program or a person added to them."""
    for message in reversed(messages):
        if message["role"] in TOOL_ROLES:
            return True
        if message["role"] == "assistant":
            return False
    return False


def parts(message: Mapping[str, object]) -> list[dict[str, object]]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def text_of(message: Mapping[str, object]) -> str:
    """A message's text; the text parts of list content, joined by newlines."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in parts(message) if part["type"] == "text")


def last_asks(messages: list[dict[str, object]], max_chars: int, at_most: int) -> list[str]:
    """Asks of a person, newest first, each capped: turns that only carry tool results, images or a program's
    wrapping are skipped. Empty when no user message holds text."""
    found: list[str] = []
    for message in reversed(messages):
        if message["role"] == "user":
            text = ask_in(text_of(message))
            if text:
                found.append(cap(text, max_chars))
                at_most -= 1
                if not at_most:
                    break
    return found


def system_text(messages: list[dict[str, object]]) -> str:
    """The beginning of the system prompt; empty without one."""
    first = messages[0]
    return text_of(first)[:MAX_SYSTEM_CHARS].strip() if first["role"] in SYSTEM_ROLES else ""


def session_of(body: Mapping[str, object], messages: list[dict[str, object]]) -> str:
    """The identity of a conversation: `user`, `metadata.session_id`, or a digest of how the conversation began, which
    may be long and is hashed with several keys from here on."""
    user = typed(body, "user", str, "a string")
    metadata = typed(body, "metadata", dict, "an object") or {}
    named = user or metadata.get("session_id")
    if isinstance(named, str) and named:
        return f"named:{named}"
    return BEGIN + sha256(beginning(messages).encode("utf-8", "replace")).hexdigest()


def identity(session: str, chat: ChatRequest) -> str:
    """A conversation's name and its beginning: clients name a user as often as a conversation."""
    begin = "" if session.startswith(BEGIN) else beginning(chat.messages)
    return f"{session}\0{begin}"


def beginning(messages: list[dict[str, object]]) -> str:
    """The texts of a conversation's messages up to the first in which a person asks, and before the first answer."""
    texts = []
    for message in messages:
        if message["role"] == "assistant":
            break
        texts.append(text_of(message))
        if message["role"] == "user" and ask_in(texts[-1]):
            break
    return "\0".join(texts)


def flag(body: Mapping[str, object], name: str) -> bool:
    return bool(typed(body, name, bool, "true or false"))


def count(body: Mapping[str, object], name: str, *, least: int = 1, most: int) -> int | None:
    """A whole number within bounds, or None when absent."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        wrong(name, body, f"a whole number from {least} to {most}")
    return value


def number(body: Mapping[str, object], name: str, least: float, most: float) -> None:
    """Refuses a value that is neither null nor a number within bounds."""
    value = body[name]
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        wrong(name, body, f"a number from {least} to {most}")


def few(body: Mapping[str, object], name: str, most: int) -> None:
    """Refuses a list or an object with more entries than that."""
    value = body.get(name)
    if isinstance(value, list | dict) and len(value) > most:
        raise invalid(f"'{name}' has {len(value)} entries; allowed: at most {most}", name)


def typed(body: Mapping[str, object], name: str, kind: type, allowed: str) -> Any:
    """A field that is absent, null or of that type."""
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        wrong(name, body, allowed)
    return value


def wrong(name: str, body: Mapping[str, object], allowed: str) -> NoReturn:
    if name not in body:
        raise invalid(f"'{name}' is required: {allowed}", name, code="missing_required_parameter")
    value = body[name]
    shown = json_type(value) if value is None or (value and isinstance(value, list | dict)) else shorten(value)
    raise invalid(f"'{name}' is {shown}; allowed: {allowed}", name)


def wrong_type(value: object, where: str, allowed: str) -> ApiError:
    return invalid(f"'{where}' must be {allowed}, got {json_type(value)}", where)


def unknown_kind(value: object, where: str, allowed: str) -> ApiError:
    return invalid(f"'{where}' is {shorten(value)}; allowed: {allowed}", where)


def json_type(value: object) -> str:
    """JSON's word for a value's type."""
    for kinds, word in JSON_TYPES:
        if isinstance(value, kinds):
            return word
    return "null"


def checked_fields(body: Mapping[str, object], limits: GatewayConfig) -> Mapping[str, object]:
    """The body, with fields that engines ignore today under their new name. Raises ApiError for the first field that is
    not allowed, or that asks for more than is allowed."""
    for name in body:
        if name in WHOLE_NUMBERS:
            least, limit = WHOLE_NUMBERS[name]
            count(body, name, least=least, most=getattr(limits, limit))
        elif name in NUMBERS:
            number(body, name, *NUMBERS[name])
        elif name in ENTRIES:
            few(body, name, getattr(limits, ENTRIES[name]))
        elif name in GUIDED:
            return checked_fields(with_structured_outputs(body), limits)
        elif name not in FIELDS and name not in limits.extra_fields:
            raise unknown_field(name, limits)
    check_entries(body)
    if not isinstance(body.get("logprobs"), bool):  # some engines take how many
        count(body, "logprobs", least=0, most=limits.max_top_logprobs)
    return body


def check_entries(body: Mapping[str, object]) -> None:
    """Refuses tools that are no objects, and options of a stream that are no switches. Raises ApiError."""
    for name in ("tools", "functions"):
        for i, tool in enumerate(typed(body, name, list, "a list") or ()):
            if not isinstance(tool, dict):
                raise wrong_type(tool, f"{name}[{i}]", "an object")
    for name, value in (typed(body, "stream_options", dict, "an object") or {}).items():
        if value is not None and not isinstance(value, bool):
            raise wrong_type(value, f"stream_options.{name}", "true or false")


def with_structured_outputs(body: Mapping[str, object]) -> dict[str, object]:
    """The body with what its `guided_*` fields ask for in `structured_outputs`. Raises ApiError."""
    asked = {GUIDED[name]: value for name, value in body.items() if name in GUIDED and value is not None}
    if asked and body.get("structured_outputs") is not None:
        raise invalid("'structured_outputs' beside guided_* fields; allowed: one of them", "structured_outputs")
    rest = {name: value for name, value in body.items() if name not in GUIDED}
    return rest | ({"structured_outputs": asked} if asked else {})


def unknown_field(
    name: str, limits: GatewayConfig, request: str = "a chat request", known: Collection[str] = OPENAI
) -> ApiError:
    close = get_close_matches(name[:80], [*known, *SAMPLING, *limits.extra_fields], n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return invalid(
        f"{shorten(name)} is not a field that {request} may have{hint} allowed: the API's own, the sampling fields of "
        "vLLM and llama.cpp, and what the operator adds by gateway.extra_fields",
        name[:80],
        code="unknown_parameter",
    )
