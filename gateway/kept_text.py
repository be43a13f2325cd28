"""How much of an answer a person kept when editing it."""

from __future__ import annotations

import re

MAX_EDIT_CHARS = 20_000
"""Two texts of this length take some 30 ms; nothing of them is stored."""

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+|[^\w\s]")
"""A word, a sign, or a character of a script that puts no spaces between words."""


def kept_share(original: str, edited: str) -> float:
    """Share of the answer's words that the edited text still has, in the same order: longest common subsequence over
    the length of the original. 1.0 for an answer without words, which nobody can take away from."""
    before, after = WORD.findall(original), WORD.findall(edited)
    return common_length(before, after) / len(before) if before else 1.0


def common_length(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence, by Hyyrö's bit-parallel algorithm (2004): one step per word of `right`
    on a number of as many bits as `left` has words."""
    places: dict[str, int] = {}
    for place, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(left)) - 1
    state = full
    for word in right:
        matches = state & places.get(word, 0)
        state = ((state + matches) | (state - matches)) & full
    return len(left) - state.bit_count()
