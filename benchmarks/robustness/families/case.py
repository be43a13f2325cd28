"""Lower, upper, title and random case of prose words. Numbers, units, code, quotations and identifiers keep theirs."""

from __future__ import annotations

import re

import numpy as np

from benchmarks.robustness.prose import prose_words

MEANINGFUL_CASE = re.compile(r"[A-Z]{1,2}|.+[a-z].*[A-Z].*|[a-z]+[A-Z].*")
"""GB, F, GiB, camelCase: another case could be another unit or another identifier."""


def variants(text: str, rng: np.random.Generator) -> dict[str, str]:
    """Four, fewer where the text has that case already; in random case half of the letters are capitals."""
    parts = [(word.start, word.end) for word in prose_words(text)]
    changed = [span for span in parts if not MEANINGFUL_CASE.fullmatch(text[slice(*span)])]
    coins = rng.random(len(text)) < 0.5
    found = {name: list(text) for name in ("lower", "upper", "title", "random")}
    for start, end in changed:
        for i in range(start, end):
            found["lower"][i] = in_case(text[i], is_upper=False)
            found["upper"][i] = in_case(text[i], is_upper=True)
            found["title"][i] = in_case(text[i], is_upper=i == start)
            found["random"][i] = in_case(text[i], is_upper=bool(coins[i]))
    return {name: "".join(letters) for name, letters in found.items()}


def in_case(letter: str, *, is_upper: bool) -> str:
    """The letter in that case, where it has exactly one there and comes back from it: not for ß and dotless i."""
    other = letter.upper() if is_upper else letter.lower()
    back = other.lower() if is_upper else other.upper()
    return other if len(other) == 1 and back == letter else letter
