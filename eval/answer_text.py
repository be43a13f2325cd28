"""Reading an answer: its normal form, its first line, its fenced blocks, the terms it names."""

from __future__ import annotations

import re
from typing import Final

MAX_ANSWER_CHARS: Final = 10_000
"""Graders read no further. Ours: ten times what the largest `max_tokens` of a probe can give, so that an answer of
megabytes costs no more than a long one."""

_FENCE: Final = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_OPENING: Final = "\"'`*“”„‘’«»¿¡([ "
_CLOSING: Final = _OPENING + ".,;:!?…)]"


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
