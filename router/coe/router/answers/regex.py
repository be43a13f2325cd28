"""`regex`: a pattern is found in the answer."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator

from coe.router.answers import AnswerKind
from coe.router.types import Record

_MAX_CHARS: Final = 2_000
"""Python's `re` backtracks, so the text is kept shorter than for other graders. Ours."""


def _compiles(pattern: str) -> str:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if compiled.search("") is not None:
        raise ValueError("matches the empty text, so every answer would do")
    return pattern


class Options(Record):
    r"""Options of the kind `regex`.

    `pattern` is in Python's `re` syntax and searched in the stripped answer; anchor it with `\A` and `\Z` to compare
    the whole. The pattern is trusted and the answer is not: avoid nested quantifiers such as `(a+)+`, whose time grows
    exponentially with the answer.
    """

    pattern: Annotated[str, AfterValidator(_compiles)]
    flags: tuple[Literal["IGNORECASE", "MULTILINE", "DOTALL"], ...] = ()


def build(options: Options) -> AnswerKind:
    """Build the kind that scores 1 or 0 by a pattern. An answer longer than 2,000 characters gets 0: an answer that was
    cut could match an anchored pattern."""
    flags = re.NOFLAG
    for name in options.flags:
        flags |= re.RegexFlag[name]
    pattern = re.compile(options.pattern, flags)

    def score(answer: str) -> float:
        text = answer.strip()
        return float(len(text) <= _MAX_CHARS and pattern.search(text) is not None)

    return AnswerKind(score=score)


EXAMPLES = (
    Options(pattern=r"\A\d{4}-\d{2}-\d{2}\Z"),
    Options(pattern=r"^dear ana\b", flags=("IGNORECASE", "MULTILINE")),
)
