"""`numeric`: the number the answer gives lies within a tolerance of the value."""

from __future__ import annotations

import math
import re
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from eval.answer_text import clip
from eval.types import Grader

_GAP: Final = "\u00a0\u2009\u202f'’"
_NUMBER: Final = re.compile(rf"(?<![\w.,)])[-−+]?\$?\d[\d.,{_GAP}]*(?:e[-+]?\d+\b)?|\d[\d.,{_GAP}]*", re.IGNORECASE)
_GROUPED: Final = re.compile(r"\d{1,3}(,\d{3})+|\d{1,3}(\.\d{3}){2,}")


class Options(BaseModel):
    """`tolerance` is absolute, in the unit of `value`, and its bounds are inside (up to rounding).

    `take` says which number counts when the answer gives several. The default is the last, since a model that shows
    its working ends with the result ("12 plus 30 is 42"); `first` suits prompts that ask for the number alone, where a
    small model keeps talking after it. An equals sign decides before either: the number right after the last `=`
    that has one is the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(allow_inf_nan=False)
    tolerance: float = Field(default=1e-6, ge=0, allow_inf_nan=False)
    take: Literal["last", "first"] = "last"


def _to_float(token: str) -> float:
    """A number as people write it. With both separators the later one is the decimal sign (`1.234,50`, `1,234.50`);
    a lone comma before three digits groups thousands (`1,234`), any other is a decimal comma (`3,5`); a lone point is
    a decimal point unless it repeats (`1.234.567`)."""
    text = re.sub(rf"[{_GAP}$+]", "", token).replace("−", "-").rstrip(".,")
    sign, digits = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    if _GROUPED.fullmatch(digits):
        digits = re.sub("[.,]", "", digits)
    elif digits.rfind(",") > digits.rfind("."):
        digits = digits.replace(".", "").replace(",", ".")
    else:
        digits = digits.replace(",", "")
    try:
        return sign * float(digits)
    except ValueError:
        return math.nan


def _number_given(answer: str, take: Literal["last", "first"]) -> float:
    """The number that counts; NaN when there is none."""
    for part in reversed(answer.split("=")[1:]):
        found = _NUMBER.match(part.lstrip(" \t*`$€£¥\\({"))
        if found:
            return _to_float(found.group())
    found_all = _NUMBER.findall(answer)
    return _to_float(found_all[-1 if take == "last" else 0]) if found_all else math.nan


def build(options: Options) -> Grader:
    """A grader that gives 1 or 0; an answer without a number gets 0."""

    def grade(answer: str) -> float:
        given = _number_given(clip(answer), options.take)
        return float(math.isclose(given, options.value, rel_tol=1e-9, abs_tol=options.tolerance * (1 + 1e-9)))

    return grade


EXAMPLES: tuple[Options, ...] = (
    Options(value=42),
    Options(value=12.5, tolerance=0.05, take="first"),
)
