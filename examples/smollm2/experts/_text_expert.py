"""An expert that answers plain questions of one message in this process, and leaves all else to the next expert."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from coe.base.errors import AbstainedError
from coe.fleet.backend import BackendRequest, BackendResponse, Unconnected
from coe.fleet.chat_completions import last_question, response_of

HARMLESS = frozenset(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "user",
        "metadata",
        "max_tokens",
        "max_completion_tokens",
        "frequency_penalty",
        "presence_penalty",
        "store",
        "service_tier",
    ]
)
"""Fields of a request that a right answer satisfies, whatever they say. Any other asks for more than that."""

Answer = Callable[[str], str | None]
"""The answer to a text; None where any word of it is not understood."""


class TextExpert(Unconnected):
    """Costs nothing: usage is 0."""

    def __init__(self, name: str, answer: Answer) -> None:
        self._name, self._answer = name, answer

    async def send(self, request: BackendRequest) -> BackendResponse:
        text = self._answer_to(request.body)
        if text is None:
            raise AbstainedError(f"{self._name} has no answer to this request")
        return response_of(self._name, text, request)

    def _answer_to(self, body: Mapping[str, object]) -> str | None:
        messages = cast("list[Mapping[str, object]]", body.get("messages"))
        asks_more = any(value not in (None, [], {}, False) for name, value in body.items() if name not in HARMLESS)
        if asks_more or len(messages) != 1 or messages[0].get("role") != "user":
            return None
        text = last_question(body)
        return self._answer(text) if text else None
