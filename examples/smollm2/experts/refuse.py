"""A sentence that answers whatever is asked. No grade chooses it: a policy pins a category to it."""

from __future__ import annotations

from pydantic import Field

from coe.fleet.calls.chat_completions import TextBackend
from coe.router.section import Section

from ._text_expert import text_expert


class Options(Section):
    """The sentence."""

    sentence: str = Field(min_length=1, max_length=2000, description="the whole answer")


EXAMPLES = (Options(sentence="I cannot help with this here. Please call our service desk."),)


def build(options: Options) -> TextBackend:
    return text_expert("refuse", lambda text: options.sentence)
