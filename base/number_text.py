"""Numbers as people write them."""

from __future__ import annotations

import math
import re
from typing import Final, Literal

_GAP: Final = "\u00a0\u2009\u202f'’"
_NUMBER: Final = re.compile(rf"(?<![\w.,)])[-−+]?\$?\d[\d.,{_GAP}]*(?:e[-+]?\d+\b)?|\d[\d.,{_GAP}]*", re.IGNORECASE)
_GROUPED: Final = re.compile(r"\d{1,3}(,\d{3})+|\d{1,3}(\.\d{3}){2,}")


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


def number_given(answer: str, take: Literal["last", "first"]) -> float:
    """The number that counts in an answer: the one right after the last `=` that has one, else the last or the first;
    NaN when there is none."""
    for part in reversed(answer.split("=")[1:]):
        found = _NUMBER.match(part.lstrip(" \t*`$€£¥\\({"))
        if found:
            return _to_float(found.group())
    found_all = _NUMBER.findall(answer)
    return _to_float(found_all[-1 if take == "last" else 0]) if found_all else math.nan
