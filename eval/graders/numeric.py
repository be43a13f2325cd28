"""`numeric`: the number the answer gives lies within a tolerance of the value."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from base.answer_text import clip, number_given
from eval.graders import Grader
from router.types import Record


class Options(Record):
    """`tolerance` is absolute, in the unit of `value`, and its bounds are inside (up to rounding).

    `take` says which number counts when the answer gives several. The default is the last, since a model that shows
    its working ends with the result ("12 plus 30 is 42"); `first` suits prompts that ask for the number alone, where a
    small model keeps talking after it. An equals sign decides before either: the number right after the last `=`
    that has one is the result.
    """

    value: float = Field(allow_inf_nan=False)
    tolerance: float = Field(default=1e-6, ge=0, allow_inf_nan=False)
    take: Literal["last", "first"] = "last"


def build(options: Options) -> Grader:
    """A grader that gives 1 or 0; an answer without a number gets 0."""

    def grade(answer: str) -> float:
        given = number_given(clip(answer), options.take)
        return float(math.isclose(given, options.value, rel_tol=1e-9, abs_tol=options.tolerance * (1 + 1e-9)))

    return grade


EXAMPLES: tuple[Options, ...] = (
    Options(value=42),
    Options(value=12.5, tolerance=0.05, take="first"),
)
