"""`text`: a short answer, up to case, punctuation and articles."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from coe.router.answers import AnswerKind, clip, first_line, kind_of_text
from coe.router.types import Record

_LEAD: Final = re.compile(r"^(?:(?:(?:final|correct) )*answer (?:is )?)+(?=.)")
_PUNCTUATION: Final = re.compile(r"[^\w\s]|_")
_ARTICLES: Final = re.compile(r"\b(?:a|an|the)\b")


def normal_form(text: str) -> str:
    """Return a text as SQuAD normalizes it (Rajpurkar et al. 2016). It is in lower case without punctuation, articles
    and runs of white space; a leading "the answer is" does not count."""
    plain = _PUNCTUATION.sub(" ", clip(text).casefold())
    words = _ARTICLES.sub(" ", plain).split() or plain.split()
    return _LEAD.sub("", " ".join(words))


def _not_blank(text: str) -> str:
    if not normal_form(text):
        raise ValueError("must hold more than punctuation and white space")
    return text


class Options(Record):
    """An answer of more than `max_words` words has no key: two long texts are hardly ever the same.

    `accepted`: texts that are right, however long. `first_line`: only the first line that is not blank counts, for
    models that go on after the answer.
    """

    max_words: int = Field(default=12, ge=1, le=100)
    first_line: bool = False
    accepted: tuple[Annotated[str, AfterValidator(_not_blank)], ...] = ()


def build(options: Options) -> AnswerKind:
    """Build the kind whose keys are normal forms."""
    accepted = frozenset(normal_form(text) for text in options.accepted)

    def counted(answer: str) -> str:
        return normal_form(first_line(answer) if options.first_line else answer)

    def key(answer: str) -> str | None:
        short = counted(answer)
        return short if 0 < len(short.split()) <= options.max_words else None

    return kind_of_text(key, score=(lambda answer: float(counted(answer) in accepted)) if accepted else None)


EXAMPLES = (
    Options(),
    Options(max_words=3),
    Options(accepted=("Paris",)),
    Options(accepted=("el gato", "un gato"), first_line=True),
)
