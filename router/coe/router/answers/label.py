"""`label`: the one of some given labels that the answer names."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from coe.router.answers import AnswerKind, clip, kind_of_text
from coe.router.types import Record

Label = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"\w")]


class Options(Record):
    """`labels`: all that a prompt offers; `label`: the right one."""

    labels: tuple[Label, ...] = Field(min_length=2)
    label: Label | None = None

    @model_validator(mode="after")
    def _labels_differ_and_hold_the_right_one(self) -> Self:
        if len({label.casefold() for label in self.labels}) < len(self.labels):
            raise ValueError(f"labels {', '.join(self.labels)} must differ by more than case")
        if self.label not in (None, *self.labels):
            raise ValueError(f"label '{self.label}' is not among labels {', '.join(self.labels)}")
        return self


def build(options: Options) -> AnswerKind:
    """Build the kind whose keys are labels in lower case, as whole words; an answer that names several has none. If a
    label is part of another ("spam", "not spam"), the longer one is read first."""
    longest_first = sorted((label.casefold() for label in options.labels), key=len, reverse=True)
    named = re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(label) for label in longest_first)})(?!\w)")

    def key(answer: str) -> str | None:
        found = set(named.findall(clip(answer).casefold()))
        return str(found.pop()) if len(found) == 1 else None

    return kind_of_text(key, {options.label.casefold()} if options.label else ())


EXAMPLES = (
    Options(labels=("positive", "negative", "neutral")),
    Options(label="positive", labels=("positive", "negative", "neutral")),
    Options(label="not spam", labels=("spam", "not spam")),
)
