"""`exact`: the answer is one of the accepted texts, up to case, white space, quotes and trailing punctuation."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from base.answer_text import clip, first_line, normal_form
from eval.graders import Grader
from router.types import Record


def _not_blank(text: str) -> str:
    if not normal_form(text):
        raise ValueError("must hold more than punctuation and white space")
    return text


class Options(Record):
    """`accepted`: texts that are right. `first_line`: only the first line that is not blank is compared, for models
    that continue after the answer."""

    accepted: tuple[Annotated[str, AfterValidator(_not_blank)], ...] = Field(min_length=1)
    first_line: bool = False


def build(options: Options) -> Grader:
    """A grader that gives 1 or 0."""
    accepted = frozenset(normal_form(text) for text in options.accepted)

    def grade(answer: str) -> float:
        text = clip(answer)
        return float(normal_form(first_line(text) if options.first_line else text) in accepted)

    return grade


EXAMPLES: tuple[Options, ...] = (
    Options(accepted=("Paris",)),
    Options(accepted=("el gato", "un gato"), first_line=True),
)
