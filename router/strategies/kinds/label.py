"""`label`: the one of some given labels that the answer names."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from base.answer_text import clip
from router.strategies.types import AnswerKind, kind_of_text
from router.types import Record

Label = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"\w")]


def _that_differ(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len({label.casefold() for label in labels}) < len(labels):
        raise ValueError(f"labels {', '.join(labels)} must differ by more than case")
    return labels


Labels = Annotated[tuple[Label, ...], Field(min_length=2), AfterValidator(_that_differ)]


class Options(Record):
    labels: Labels


def label_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Finds labels in case-folded text as whole words; where one is part of another ("spam", "not spam") the longer one
    is read first."""
    longest_first = sorted((label.casefold() for label in labels), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(label) for label in longest_first)})(?!\w)")


def build(options: Options) -> AnswerKind:
    """Keys are labels in lower case; an answer that names several has none."""
    named = label_pattern(options.labels)

    def key(answer: str) -> str | None:
        found = set(named.findall(clip(answer).casefold()))
        return str(found.pop()) if len(found) == 1 else None

    return kind_of_text(key)


EXAMPLES = (Options(labels=("positive", "negative", "neutral")), Options(labels=("spam", "not spam")))
