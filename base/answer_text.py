"""Reading an answer: its normal form, its first line, its fenced blocks, its JSON, the terms it names."""

from __future__ import annotations

import json
import re
from typing import Final

from pydantic import JsonValue

MAX_ANSWER_CHARS: Final = 10_000
"""Graders read no further. Ours: ten times what the largest `max_tokens` of a probe can give, so that an answer of
megabytes costs no more than a long one."""

_FENCE: Final = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_OPENING: Final = "\"'`*“”„‘’«»¿¡([ "
_CLOSING: Final = _OPENING + ".,;:!?…)]"

_MAX_STARTS: Final = 50
"""Opening braces tried before giving up; bounds the time on an answer that is all braces. Ours."""


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
