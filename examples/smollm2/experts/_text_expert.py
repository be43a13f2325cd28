"""An expert that answers plain questions of one message in this process, and leaves all else to the next expert."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from coe.fleet.calls.chat_completions import TextBackend, last_question

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


def text_expert(name: str, answer: Answer) -> TextBackend:
    """An expert that answers what `answer` understands."""

    def answer_to(body: Mapping[str, object]) -> str | None:
        messages = cast("list[Mapping[str, object]]", body.get("messages"))
        asks_more = any(value not in (None, [], {}, False) for field, value in body.items() if field not in HARMLESS)
        if asks_more or len(messages) != 1 or messages[0].get("role") != "user":
            return None
        text = last_question(body)
        return answer(text) if text else None

    return TextBackend(name, answer_to)
