"""A sentence that answers whatever is asked. No grade chooses it: a policy pins a category to it."""

from __future__ import annotations

from pydantic import Field

from coe.router.section import Section

from ._text_expert import TextExpert


class Options(Section):
    """The sentence."""

    sentence: str = Field(min_length=1, max_length=2000, description="the whole answer")


EXAMPLES = (Options(sentence="I cannot help with this here. Please call our service desk."),)


def build(options: Options) -> TextExpert:
    return TextExpert("refuse", lambda text: options.sentence)
