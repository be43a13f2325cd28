"""`number`: the value that the answer ends with."""

from __future__ import annotations

import math
import re
from typing import Final, Literal

from pydantic import Field

from base.answer_text import clip, number_given
from router.strategies.types import AnswerKind, kind_of_text
from router.types import Record

_FRACTION: Final = re.compile(r"\\[dt]?frac\s*\{\s*([-−+]?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_BOXED: Final = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_STATED: Final = re.compile(r"answer\b[^\n]{0,40}?(?:\bis\b|:|=)(.+)", re.IGNORECASE)
_RATIO: Final = re.compile(r"(?<![\d./-])([-−+]?\d{1,15})\s*/\s*(\d{1,15})(?![\d./-])")


class Options(Record):
    """`digits` significant ones are compared: 0.333 and 1/3 are the same at three, and not at four."""

    digits: int = Field(default=6, ge=1, le=12)


def build(options: Options) -> AnswerKind:
    """Keys are plain decimals. `1,234.50`, `$1234.5` and `1234.5 km` are the same: separators, currency and unit do
    not count, so 5 km and 5 m are the same too, and 5 km and 5000 m are not. Fractions are divided out."""

    def key(answer: str) -> str | None:
        value = _value(_FRACTION.sub(r"\1/\2", clip(answer)))
        if not math.isfinite(value):
            return None
        rounded = float(f"{value:.{options.digits}g}")
        return f"{rounded:.15g}" if rounded else "0"

    return kind_of_text(key)


def _value(text: str) -> float:
    """The number that counts: in the last box, else the first of the last statement of an answer, else the last one."""
    candidates: tuple[tuple[list[str], Literal["first", "last"]], ...] = (
        (_BOXED.findall(text), "last"),
        (_STATED.findall(text), "first"),
    )
    for found, take in candidates:
        if found and math.isfinite(value := _taken(found[-1], take)):
            return value
    return _taken(text, "last")


def _taken(text: str, take: Literal["first", "last"]) -> float:
    """The first or last number, which may be a ratio."""
    ratios = [ratio for ratio in _RATIO.finditer(text) if int(ratio.group(2))]
    if ratios:
        ratio = ratios[0 if take == "first" else -1]
        beside = text[: ratio.start()] if take == "first" else text[ratio.end() :]
        if not re.search(r"\d", beside):
            return int(ratio.group(1).replace("−", "-")) / int(ratio.group(2))
    return number_given(text, take)


EXAMPLES = (Options(), Options(digits=3))
