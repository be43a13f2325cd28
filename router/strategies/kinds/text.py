"""`text`: a short answer, up to case, punctuation and articles."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field

from base.answer_text import clip
from router.strategies.types import AnswerKind, kind_of_text
from router.types import Record

_LEAD: Final = re.compile(r"^(?:(?:(?:final|correct) )*answer (?:is )?)+(?=.)")
_PUNCTUATION: Final = re.compile(r"[^\w\s]|_")
_ARTICLES: Final = re.compile(r"\b(?:a|an|the)\b")


class Options(Record):
    """An answer of more than `max_words` words has no key: two long texts are hardly ever the same."""

    max_words: int = Field(default=12, ge=1, le=100)


def build(options: Options) -> AnswerKind:
    """Keys are normalised as SQuAD does (Rajpurkar et al. 2016): lower case without punctuation, articles and runs of
    white space; "the answer is" in front does not count."""

    def key(answer: str) -> str | None:
        plain = _PUNCTUATION.sub(" ", clip(answer).casefold())
        words = _ARTICLES.sub(" ", plain).split() or plain.split()
        short = _LEAD.sub("", " ".join(words))
        return short if 0 < len(short.split()) <= options.max_words else None

    return kind_of_text(key)


EXAMPLES = (Options(), Options(max_words=3))
