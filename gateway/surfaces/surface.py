"""An API that clients may speak to the experts of a chat, and an expert's chat completion as told on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from base.json_text import to_json
from gateway.answer_reader import chat_completion, error_code, reply_json
from gateway.chat_request import ChatRequest, chat_request
from gateway.http_errors import MAX_UPSTREAM_MESSAGE_CHARS, ApiError
from gateway.passed_stream import CHAT_END
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


class Telling:
    """An expert's chat completion, told on another surface as it comes."""

    def __init__(self, surface: Surface, answer: Answer) -> None:
        self._surface, self._answer = surface, answer
        self._told: list[bytes] = []
        self._is_over = False

    def read(self, event: Mapping[str, Any]) -> None:
        """Takes an event of the expert's. Raises BackendError where it is not one of a chat completion."""
        if self._is_over:
            return
        if event.get("error") is not None:
            self._is_over = True
            self._tell(self._answer.fail(stream_error(event["error"])))
            return
        with chat_completion():
            self._tell(self._answer.read(event))

    def told(self) -> bytes:
        """Gives the bytes for the client since the last call."""
        told, self._told = b"".join(self._told), []
        return told

    def end(self) -> bytes:
        if not self._is_over:
            self._tell(self._answer.end())
        return self.told()

    def fail(self, error: ApiError) -> bytes:
        if not self._is_over:
            self._tell(self._answer.fail(error))
        return self.told()

    def whole(self, body: bytes) -> bytes:
        """The body of a whole answer. Raises BackendError; ApiError where an error is beside it."""
        values = reply_json(body)
        if values.get("error") is not None:
            raise stream_error(values["error"])
        with chat_completion():
            return to_json(self._answer.whole(values))

    def _tell(self, events: Iterable[Json]) -> None:
        self._told += [self._surface.frame(event) for event in events]


def stream_error(error: object) -> ApiError:
    """The error that an expert sent in place of an answer, or of the rest of one."""
    message = error.get("message") if isinstance(error, dict) else error
    return ApiError(str(message)[:MAX_UPSTREAM_MESSAGE_CHARS], status=502, code=error_code(error))
