"""Lower, upper, title and random case of prose words. Numbers, units, code, quotations and identifiers keep theirs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eval.robustness.cases import Family, Variant
from eval.robustness.prose import prose_words

MEANINGFUL_CASE = re.compile(r"[A-Z]{1,2}|.+[a-z].*[A-Z].*|[a-z]+[A-Z].*")
"""GB, F, GiB, camelCase: another case could be another unit or another identifier."""


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    upper_rate: float = Field(default=0.5, gt=0, lt=1, description="share of capitals in random case")


@dataclass(frozen=True)
class ChangedCase:
    """Four variants, fewer where the text has that case already."""

    options: Options

    def __call__(self, text: str, rng: np.random.Generator) -> tuple[Variant, ...]:
        parts = [(word.start, word.end) for word in prose_words(text)]
        changed = [span for span in parts if not MEANINGFUL_CASE.fullmatch(text[slice(*span)])]
        coins = rng.random(len(text)) < self.options.upper_rate
        letters = list(text)
        variants = {name: letters.copy() for name in ("lower", "upper", "title", "random")}
        for start, end in changed:
            for i in range(start, end):
                variants["lower"][i] = in_case(text[i], is_upper=False)
                variants["upper"][i] = in_case(text[i], is_upper=True)
                variants["title"][i] = in_case(text[i], is_upper=i == start)
                variants["random"][i] = in_case(text[i], is_upper=bool(coins[i]))
        return tuple(Variant(name, "".join(letters)) for name, letters in variants.items())


def in_case(letter: str, *, is_upper: bool) -> str:
    """The letter in that case, where it has exactly one there and comes back from it: not for ß and dotless i."""
    other = letter.upper() if is_upper else letter.lower()
    back = other.lower() if is_upper else other.upper()
    return other if len(other) == 1 and back == letter else letter


def build(options: Options) -> Family:
    return ChangedCase(options)


EXAMPLES = (Options(), Options(upper_rate=0.2))
