"""`label`: of the allowed labels the answer names exactly one, the right one."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from eval.answer_text import clip
from eval.types import Grader

_Label = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"\w")]


class Options(BaseModel):
    """`labels`: all labels the prompt offers, `label` among them. Naming it twice is naming one; an answer that lists
    them all, or says "not positive but negative", names two and is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: _Label
    labels: tuple[_Label, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _label_is_allowed(self) -> Self:
        if self.label not in self.labels:
            raise ValueError(f"label '{self.label}' is not among labels {', '.join(self.labels)}")
        folded = {label.casefold() for label in self.labels}
        if len(folded) < len(self.labels):
            raise ValueError(f"labels {', '.join(self.labels)} must differ by more than case")
        return self


def build(options: Options) -> Grader:
    """A grader that gives 1 or 0. Labels are whole words, ignoring case; where one label is part of another ("spam",
    "not spam") the longer one is read first."""
    longest_first = sorted((label.casefold() for label in options.labels), key=len, reverse=True)
    named = re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(label) for label in longest_first)})(?!\w)")
    right = {options.label.casefold()}

    def grade(answer: str) -> float:
        return float(set(named.findall(clip(answer).casefold())) == right)

    return grade


EXAMPLES: tuple[Options, ...] = (
    Options(label="positive", labels=("positive", "negative", "neutral")),
    Options(label="not spam", labels=("spam", "not spam")),
)
