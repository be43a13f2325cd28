"""An API that clients may speak to the experts of a chat, and an expert's chat completion as told on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from base.json_text import to_json
from gateway.chat_request import ChatRequest, chat_request

if TYPE_CHECKING:
    from gateway.http_errors import ApiError
    from router.gateway_config import GatewayConfig

Json = dict[str, Any]


class EndMark:
    """The line that begins the end of a stream: a field of an event with one of some values."""

    def __init__(self, name: bytes, *values: bytes) -> None:
        self._values = values
        self._line = re.compile(
            rb"^" + name + rb":[ \t]*(?:" + b"|".join(re.escape(value) for value in values) + rb")", re.MULTILINE
        )

    def found_in(self, lines: bytes) -> int | None:
        """The place where that line begins."""
        for value in self._values:
            if value in lines:  # which is quicker to see than where a line begins
                found = self._line.search(lines)
                return None if found is None else found.start()
        return None


CHAT_END = EndMark(b"data", b"[DONE]")


class Answer(Protocol):
    """One answer, translated for the client. Its events come from those of a chat completion."""

    def read(self, event: Mapping[str, Any]) -> Iterable[Json]:
        """The events that follow from the next one of a streamed chat completion."""
        ...

    def end(self) -> Iterable[Json]:
        """The last events of a stream that came to its end."""
        ...

    def fail(self, error: ApiError) -> Iterable[Json]:
        """The last events of a stream that was cut."""
        ...

    def whole(self, answer: Mapping[str, Any]) -> Json:
        """The answer from a whole chat completion."""
        ...


class Surface:
    """One API: how its requests are read, and how its answers and errors look. This one is /v1/chat/completions itself;
    the others differ in what they override.

    `end_mark` is the line with which the last event of a stream begins.
    """

    end_mark = CHAT_END

    def request(self, body: Mapping[str, Any], bounds: GatewayConfig, headers: Mapping[bytes, bytes]) -> ChatRequest:
        """The chat request that says the same. Raises ApiError 400 naming a field, its value and what is allowed."""
        return chat_request(body, bounds)

    def answer(self, chat: ChatRequest, decision_id: str, request_id: str) -> Answer | None:
        """The answer to be told; None where a chat completion is what the client asked for."""
        return None

    def frame(self, event: Json) -> bytes:
        """An event as the bytes of a stream."""
        return b"data: " + to_json(event) + b"\n\n"

    def error(self, error: ApiError, request_id: str) -> bytes:
        """The body of an answer that is an error."""
        return error.body

    def error_event(self, error: ApiError, request_id: str) -> bytes:
        """The last event of a stream that an expert began on this very wire and that was cut."""
        return b"data: " + error.body + b"\n\n"


class NamedEvents(Surface):
    """An API whose events come under the name of their type, as in those after chat completions."""

    def frame(self, event: Json) -> bytes:
        return b"event: " + str(event["type"]).encode() + b"\ndata: " + to_json(event) + b"\n\n"
