"""`label`: the one of some given labels that the answer names."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from base.answer_text import clip
from router.strategies.types import AnswerKind, kind_of_text
from router.types import Record

Label = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"\w")]


class Options(Record):
    labels: tuple[Label, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        if len({label.casefold() for label in self.labels}) < len(self.labels):
            raise ValueError(f"labels {', '.join(self.labels)} must differ by more than case")
        return self


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
