"""An API that clients may speak to the experts of a chat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from base.json_text import to_json
from gateway.answer_reader import CHAT_END, EndMark
from gateway.http_errors import ApiError
from gateway.wire import ChatRequest, chat_request
from router.gateway_config import GatewayConfig

Json = dict[str, Any]


class Answer(Protocol):
    """One answer as it is told to the client. Its events come from those of a chat completion."""

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


class Surface(Protocol):
    """One API: how its requests are read, and how its answers and errors look."""

    @property
    def end_mark(self) -> EndMark:
        """The line with which the last event of a stream begins."""
        ...

    def request(self, body: Mapping[str, Any], bounds: GatewayConfig, headers: Mapping[bytes, bytes]) -> ChatRequest:
        """The chat request that says the same. Raises ApiError 400 naming a field, its value and what is allowed."""
        ...

    def answer(self, chat: ChatRequest, decision_id: str) -> Answer | None:
        """The answer to be told; None where a chat completion is what the client asked for."""
        ...

    def frame(self, event: Json) -> bytes:
        """An event as the bytes of a stream."""
        ...

    def error(self, error: ApiError) -> bytes:
        """The body of an answer that is an error."""
        ...

    def error_event(self, error: ApiError) -> bytes:
        """The last event of a stream that an expert began on this very wire and that was cut."""
        ...


class ChatSurface:
    """/v1/chat/completions itself."""

    end_mark = CHAT_END

    def request(self, body: Mapping[str, Any], bounds: GatewayConfig, headers: Mapping[bytes, bytes]) -> ChatRequest:
        return chat_request(body, bounds)

    def answer(self, chat: ChatRequest, decision_id: str) -> Answer | None:
        return None

    def frame(self, event: Json) -> bytes:
        return b"data: " + to_json(event) + b"\n\n"

    def error(self, error: ApiError) -> bytes:
        return error.body

    def error_event(self, error: ApiError) -> bytes:
        return b"data: " + error.body + b"\n\n"


def named_frame(event: Json) -> bytes:
    """An event under the name of its type, as the APIs after chat completions send them."""
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + to_json(event) + b"\n\n"
