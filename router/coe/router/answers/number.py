"""`number`: the value that the answer ends with."""

from __future__ import annotations

import math
import re
from typing import Final, Literal

from pydantic import Field

from coe.router.answers import AnswerKind, clip, kind_of_text
from coe.router.types import Record

_FRACTION: Final = re.compile(r"\\[dt]?frac\s*\{\s*([-−+]?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_BOXED: Final = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_STATED: Final = re.compile(r"answer\b[^\n]{0,40}?(?:\bis\b|:|=)(.+)", re.IGNORECASE)
_RATIO: Final = re.compile(r"(?<![\d./-])([-−+]?\d{1,15})/(\d{1,15})(?![\d./-])")
_GAP: Final = "\u00a0\u2009\u202f'’"
_NUMBER: Final = re.compile(rf"(?<![\w.,)])[-−+]?\$?\d[\d.,{_GAP}]*(?:e[-+]?\d+\b)?|\d[\d.,{_GAP}]*", re.IGNORECASE)
_GROUPED: Final = re.compile(r"\d{1,3}(,\d{3})+|\d{1,3}(\.\d{3}){2,}")

Take = Literal["last", "first"]


class Options(Record):
    """Options of the kind `number`.

    `digits` significant ones are compared: 0.333 and 1/3 are the same at three, and not at four. An answer is right if
    it is at most `tolerance` from `value`. `take` chooses a number if the answer has several and states none: models
    that show their working end with the result. `first` suits prompts that ask for the number alone, if a small model
    keeps talking.
    """

    digits: int = Field(default=6, ge=1, le=12)
    take: Take = "last"
    value: float | None = Field(default=None, allow_inf_nan=False)
    tolerance: float = Field(default=1e-6, ge=0, allow_inf_nan=False)


def build(options: Options) -> AnswerKind:
    """Build the kind whose keys are plain decimals. `1,234.50`, `$1234.5` and `1234.5 km` are the same, since
    separators, currency and unit do not count: 5 km equals 5 m, and not 5000 m. Fractions are divided out; with spaces,
    `156 / 12` is a question rather than an answer."""

    def key(answer: str) -> str | None:
        value = _value(answer, options.take)
        if not math.isfinite(value):
            return None
        rounded = float(f"{value:.{options.digits}g}")
        return f"{rounded:.15g}" if rounded else "0"

    def score(answer: str) -> float:
        given, slack = _value(answer, options.take), options.tolerance * (1 + 1e-9)
        return float(math.isclose(given, options.value or 0.0, rel_tol=1e-9, abs_tol=slack))

    return kind_of_text(key, score=None if options.value is None else score)


def _value(answer: str, take: Take) -> float:
    """Return the number in the last box, else the first of the last statement, else by `take`; NaN if there is none."""
    text = _FRACTION.sub(r"\1/\2", clip(answer))
    candidates: tuple[tuple[list[str], Take], ...] = ((_BOXED.findall(text), "last"), (_STATED.findall(text), "first"))
    for found, of_found in candidates:
        if found and math.isfinite(value := _taken(found[-1], of_found)):
            return value
    return _taken(text, take)


def _taken(text: str, take: Take) -> float:
    """Return the number right after the last `=` that has one, else the first or the last, which may be a ratio."""
    ratios = [ratio for ratio in _RATIO.finditer(text) if int(ratio.group(2))]
    if ratios:
        ratio = ratios[0 if take == "first" else -1]
        beside = text[: ratio.start()] if take == "first" else text[ratio.end() :]
        if not re.search(r"\d", beside):
            return int(ratio.group(1).replace("−", "-")) / int(ratio.group(2))
    for part in reversed(text.split("=")[1:]):
        if found := _NUMBER.match(part.lstrip(" \t*`$€£¥\\({")):
            return _to_float(found.group())
    found_all = _NUMBER.findall(text)
    return _to_float(found_all[-1 if take == "last" else 0]) if found_all else math.nan


def _to_float(token: str) -> float:
    """Parse a number as people write it. With both separators the later one is the decimal sign (`1.234,50`,
    `1,234.50`). A lone comma before three digits groups thousands (`1,234`), any other is a decimal comma (`3,5`). A
    lone point is a decimal point unless it repeats (`1.234.567`)."""
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


EXAMPLES = (Options(), Options(digits=3), Options(value=42), Options(value=12.5, tolerance=0.05, take="first"))
