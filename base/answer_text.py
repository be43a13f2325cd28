"""Reading an answer: its normal form, its first line, its fenced blocks, its JSON, the terms it names, its number, and
how sure its tokens were."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, Literal

from pydantic import JsonValue

MAX_ANSWER_CHARS: Final = 10_000
"""Graders read no further. Ours: ten times what the largest `max_tokens` of a probe can give, so that an answer of
megabytes costs no more than a long one."""

_FENCE: Final = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_OPENING: Final = "\"'`*“”„‘’«»¿¡([ "
_CLOSING: Final = _OPENING + ".,;:!?…)]"

_MAX_STARTS: Final = 50
"""Opening braces tried before giving up; bounds the time on an answer that is all braces. Ours."""
_GAP: Final = "\u00a0\u2009\u202f'’"
_NUMBER: Final = re.compile(rf"(?<![\w.,)])[-−+]?\$?\d[\d.,{_GAP}]*(?:e[-+]?\d+\b)?|\d[\d.,{_GAP}]*", re.IGNORECASE)
_GROUPED: Final = re.compile(r"\d{1,3}(,\d{3})+|\d{1,3}(\.\d{3}){2,}")


def clip(answer: str) -> str:
    """The first `MAX_ANSWER_CHARS` characters."""
    return answer[:MAX_ANSWER_CHARS]


def normal_form(text: str) -> str:
    """Case folded, white space runs made one space, surrounding quotes, brackets, emphasis and trailing punctuation
    removed. Accents and inner punctuation stay: `«L'été.»` gives `l'été`."""
    return " ".join(text.casefold().split()).lstrip(_OPENING).rstrip(_CLOSING)


def first_line(text: str) -> str:
    """The first line that holds more than white space; empty when there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def fenced_blocks(text: str) -> tuple[str, ...]:
    """Contents of the ``` blocks in order. A last block that was cut off before its closing fence counts."""
    return tuple(match.group(1) for match in _FENCE.finditer(text))


def names_term(text: str, term: str) -> bool:
    """Returns True where `term` occurs in `text` as whole words, ignoring case and the width of white space.

    A term that ends in `*` matches every word that begins so: `sav*` is named by "saving".
    """
    stem = term.removesuffix("*")
    words = r"\s+".join(re.escape(word) for word in stem.casefold().split())
    closing = "" if stem != term else r"(?!\w)"
    return re.search(rf"(?<!\w){words}{closing}", text.casefold()) is not None


def _first_object(text: str) -> dict[str, JsonValue] | None:
    """The first JSON object that parses; None when there is none."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    for _ in range(_MAX_STARTS):
        if start < 0:
            return None
        try:
            value, _end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        return value if isinstance(value, dict) else None
    return None


def object_in(answer: str) -> dict[str, JsonValue] | None:
    """The object in the fenced blocks, else the one in the text."""
    for text in (*fenced_blocks(answer), answer):
        found = _first_object(text)
        if found is not None:
            return found
    return None


def mean_logprob(completion: Any) -> float | None:
    """Mean log-probability of the tokens of the first choice; None where the engine gave none."""
    try:
        found = [float(token["logprob"]) for token in completion["choices"][0]["logprobs"]["content"]]
    except (LookupError, TypeError, ValueError):
        return None
    known = [value for value in found if math.isfinite(value)]
    return sum(known) / len(known) if known else None


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
