"""`label`: of the allowed labels the answer names exactly one, the right one."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from base.answer_text import clip
from eval.graders import Grader
from router.strategies.kinds.label import Label, Labels, label_pattern
from router.types import Record


class Options(Record):
    """`labels`: all labels the prompt offers, `label` among them. Naming it twice is naming one; an answer that lists
    them all, or says "not positive but negative", names two and is wrong."""

    label: Label
    labels: Labels

    @model_validator(mode="after")
    def _label_is_allowed(self) -> Self:
        if self.label not in self.labels:
            raise ValueError(f"label '{self.label}' is not among labels {', '.join(self.labels)}")
        return self


def build(options: Options) -> Grader:
    """A grader that gives 1 or 0. Labels are whole words, ignoring case."""
    named = label_pattern(options.labels)
    right = {options.label.casefold()}

    def grade(answer: str) -> float:
        return float(set(named.findall(clip(answer).casefold())) == right)

    return grade


EXAMPLES: tuple[Options, ...] = (
    Options(label="positive", labels=("positive", "negative", "neutral")),
    Options(label="not spam", labels=("spam", "not spam")),
)
