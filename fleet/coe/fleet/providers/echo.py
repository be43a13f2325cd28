"""A fake expert: answers with the question. Usage counts words. For tests and for trying a configuration."""

from __future__ import annotations

from pydantic import Field

from coe.fleet.calls.backend import ChatBackend
from coe.fleet.calls.chat_completions import TextBackend, last_question
from coe.router.section import Section


class Options(Section):
    """Answers of the fake."""

    model: str = Field(default="echo", min_length=1, description="what it calls itself in answers")
    delay_s: float = Field(default=0.0, ge=0, description="wait before the answer and before each word of a stream")


EXAMPLES = (Options(), Options(model="parrot", delay_s=0.001))


def build(options: Options) -> ChatBackend:
    """Answers at once with the last user message."""
    return TextBackend(options.model, last_question, delay_s=options.delay_s, counts_words=True)
