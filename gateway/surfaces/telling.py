"""An expert's chat completion, told on another surface."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from base.errors import BackendError
from base.json_text import to_json
from gateway.answer_reader import error_code, reply_json
from gateway.http_errors import MAX_UPSTREAM_MESSAGE_CHARS, ApiError
from gateway.surfaces.surface import Answer, Json, Surface


class Telling:
    """An expert's chat completion, told on another surface as it comes."""

    def __init__(self, surface: Surface, answer: Answer) -> None:
        self._surface, self._answer = surface, answer
        self._told: list[bytes] = []
        self._is_over = False

    def read(self, event: Mapping[str, Any]) -> None:
        """Takes an event of the expert's. Raises BackendError where it is none of a chat completion."""
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
        """The body of a whole answer. Raises ApiError where it holds an error, BackendError."""
        values = reply_json(body)
        if values.get("error") is not None:
            raise stream_error(values["error"])
        with chat_completion():
            return to_json(self._answer.whole(values))

    def _tell(self, events: Iterable[Json]) -> None:
        self._told += [self._surface.frame(event) for event in events]


@contextmanager
def chat_completion() -> Iterator[None]:
    """Raises BackendError where what is read inside does not have the form of a chat completion."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BackendError("the expert's answer does not have the form of a chat completion", status=502) from error


def stream_error(error: object) -> ApiError:
    """The error that an expert sent in place of an answer, or of the rest of one."""
    message = error.get("message") if isinstance(error, dict) else error
    return ApiError(str(message)[:MAX_UPSTREAM_MESSAGE_CHARS], status=502, code=error_code(error))
