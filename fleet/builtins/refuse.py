"""A sentence that answers whatever is asked. No grade chooses it: a policy pins a category to it."""

from __future__ import annotations

from pydantic import Field

from fleet.builtins import Builtin
from router.section import Section


class Options(Section):
    """The sentence."""

    sentence: str = Field(min_length=1, max_length=2000, description="the whole answer")


EXAMPLES = (Options(sentence="I cannot help with this here. Please call our service desk."),)


def build(options: Options) -> Builtin:
    return Refusal(options.sentence)


class Refusal:
    """Never abstains."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    def answer(self, text: str) -> str | None:
        return self._sentence
