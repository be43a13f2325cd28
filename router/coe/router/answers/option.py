"""`option`: the letter of the option that the answer names."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field

from coe.router.answers import AnswerKind, clip, kind_of_text
from coe.router.types import Record

_STATED: Final = r"(?i:answer|option|choice)\b[^\n.;]{{0,30}}?(?:\b(?i:is)\b|:|=|\*\*)[\s*`(\[{{$]*([{0}])\b(?!')"


class Options(Record):
    """`last` is the last letter that a prompt offers: another letter is not an option. `right` is the right one."""

    last: str = Field(default="J", pattern="^[B-Z]$")
    right: str | None = Field(default=None, pattern="^[A-Z]$")


def build(options: Options) -> AnswerKind:
    r"""Build the kind whose keys are capital letters. The answer's last statement ("the answer is (B)", `\boxed{B}`)
    counts first. Then comes a lone letter at the beginning ("B. Because ...") or alone on the last line."""
    letters = f"A-{options.last}"
    stated = re.compile(_STATED.format(letters))
    boxed = re.compile(rf"\\boxed\{{\s*(?:\\text\{{)?\(?([{letters}])\)?\s*\}}")
    alone = re.compile(rf"[\s*`(\[]*([{letters}])(?:[)\].:*`]+(?:\s|$)|\s*$)")

    def key(answer: str) -> str | None:
        text = clip(answer).strip()
        for found in (boxed.findall(text), stated.findall(text)):
            if found:
                return str(found[-1])
        first = alone.match(text) or alone.fullmatch(text.rsplit("\n", 1)[-1])
        return first.group(1) if first else None

    return kind_of_text(key, {options.right} if options.right else ())


EXAMPLES = (Options(), Options(last="D"), Options(right="B"))
