"""Reading a request of another API: each field is said in a chat request, counted as a loss, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from coe.base.errors import shorten
from coe.gateway.chat_request import ChatRequest, Native, chat_request, json_type, unknown_field, wrong_type
from coe.gateway.http_errors import invalid
from coe.router.config.expert import ClientApi
from coe.router.config.gateway import SAMPLING, GatewayConfig

STATELESS = "nothing is stored here: send the whole conversation"


@dataclass(frozen=True)
class Fields:
    """The fields of an API, beside the sampling fields of engines, which all have.

    Args:
        same: those that a chat request has under the same name.
        read: those that the API's own file reads.
        native: those that only an engine of that API understands, unless they have one of these values.
        refused: those that this gateway does not do, and why.
    """

    same: frozenset[str]
    read: frozenset[str]
    native: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Reading:
    """One request on its way to a chat request. `chat` is that request so far, `messages` its conversation, `losses`
    what it cannot say."""

    api: ClientApi
    body: Mapping[str, Any]
    bounds: GatewayConfig
    chat: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    def take(self, fields: Fields) -> None:
        """Copies what has the same name. Raises ApiError for a field that is refused or unknown."""
        for name, value in self.body.items():
            if name in fields.refused and value not in (None, False):
                raise invalid(f"'{name}' is {shown(value)}; {fields.refused[name]}", name, "unsupported_parameter")
            if name in fields.native:
                if value not in (None, *fields.native[name]):
                    self.lose(name)
            elif name in fields.same or name in SAMPLING or name in self.bounds.extra_fields:
                self.chat[name] = value
            elif name not in fields.read and name not in fields.refused:
                known = (*fields.same, *fields.read, *fields.native, *fields.refused)
                raise unknown_field(name, self.bounds, f"a request to /v1/{self.api}", known)

    def lose(self, where: str) -> None:
        self.losses.append(where)

    def put(self, name: str, value: object) -> None:
        """Says a field of the chat request, unless it is None."""
        if value is not None:
            self.chat[name] = value

    def add_system(self, text: str) -> None:
        """Adds to what the system says. Templates of many models take one such message only, and first, so what it says
        later is a reminder among what the user says, as Claude Code writes it for models that know no other way."""
        if not self.messages:
            self.messages.append({"role": "system", "content": text})
        elif self.messages[-1]["role"] == "system":
            self.messages[-1]["content"] += f"\n\n{text}"
        else:
            reminder = f"<system-reminder>\n{text}\n</system-reminder>"
            self.messages.append({"role": "user", "content": reminder})

    def turn(self) -> dict[str, Any]:
        """The assistant's message that is last, or a new one: text, reasoning and calls of one turn belong together."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        return self.messages[-1]

    def add_text(self, name: str, text: str) -> None:
        """Adds to a text of the assistant's turn."""
        turn = self.turn()
        turn[name] = f"{turn[name]}\n{text}" if turn.get(name) else text

    def add_call(self, call_id: str, name: str, arguments: str) -> None:
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        self.turn().setdefault("tool_calls", []).append(call)

    def done(self, native: Native) -> ChatRequest:
        """The chat request, beside the native one. Raises ApiError as `chat_request` does."""
        self.chat["messages"] = self.messages
        if self.losses:  # may be all of the conversation
            self.chat["messages"] = self.messages or [{"role": "user", "content": ""}]
        if not self.chat.get("tools"):  # beside which alone chat requests may have these
            for name in ("tool_choice", "parallel_tool_calls"):
                self.chat.pop(name, None)
        chat = chat_request(self.chat, self.bounds)
        facts = replace(chat.facts, needs_api=self.api.value if self.losses else None)
        return chat._replace(facts=facts, native=replace(native, losses=tuple(self.losses)))


def objects(value: object, where: str) -> list[dict[str, Any]]:
    """A list of objects, or nothing. Raises ApiError naming the place."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_type(value, where, "a list of objects")
    for number, each in enumerate(value):
        if not isinstance(each, dict):
            raise wrong_type(each, f"{where}[{number}]", "an object")
    return value


def an_object(value: object, where: str) -> dict[str, Any]:
    """An object, empty where there is none. Raises ApiError naming the place."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_type(value, where, "an object")
    return value


def a_text(values: Mapping[str, Any], name: str, where: str) -> str:
    """A text that must be there. Raises ApiError naming the place."""
    value = values.get(name)
    if not isinstance(value, str):
        raise wrong_type(value, f"{where}.{name}" if where else name, "a string")
    return value


def shown(value: object) -> str:
    return shorten(value) if isinstance(value, str | int | float | bool) else json_type(value)


def content_of(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Chat content: a text where all parts are, which every engine takes."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts
