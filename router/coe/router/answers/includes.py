"""`includes`: the answer names every required term, one of the alternatives and none of the forbidden, in few words."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from coe.router.answers import AnswerKind, clip
from coe.router.types import Record

_Term = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"\w")]


class Options(Record):
    """Terms are compared as whole words, ignoring case; a term that ends in `*` matches every word that begins so.

    `max_words` and `min_words` count what white space separates. An answer longer than graders read
    (`router.answers.MAX_ANSWER_CHARS`) is over any `max_words`.
    """

    all_of: tuple[_Term, ...] = ()
    any_of: tuple[_Term, ...] = ()
    none_of: tuple[_Term, ...] = ()
    min_words: int = Field(default=1, ge=1)
    max_words: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _requires_something(self) -> Self:
        if not self.all_of and not self.any_of:
            raise ValueError("all_of or any_of must hold a term, or every answer would do")
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(f"max_words={self.max_words} is below min_words={self.min_words}")
        return self


def build(options: Options) -> AnswerKind:
    """Build the kind that scores 1 if every condition holds, else 0: half of "use the word X" is not an answer."""

    def score(answer: str) -> float:
        text = clip(answer)
        words = len(text.split())
        fits = words >= options.min_words and (
            options.max_words is None or (words <= options.max_words and len(text) == len(answer))
        )
        return float(
            fits
            and all(names_term(text, term) for term in options.all_of)
            and (not options.any_of or any(names_term(text, term) for term in options.any_of))
            and not any(names_term(text, term) for term in options.none_of)
        )

    return AnswerKind(score=score)


def names_term(text: str, term: str) -> bool:
    """Return whether `term` occurs in `text` as whole words; case and the width of white space do not count. A term
    that ends in `*` matches every word that begins so: `sav*` is named by "saving"."""
    stem = term.removesuffix("*")
    words = r"\s+".join(re.escape(word) for word in stem.casefold().split())
    closing = "" if stem != term else r"(?!\w)"
    return re.search(rf"(?<!\w){words}{closing}", text.casefold()) is not None


EXAMPLES = (
    Options(all_of=("Ana",), any_of=("hello", "hi", "welcome"), max_words=20),
    Options(any_of=("sav*", "budget*"), none_of=("lottery",)),
)
