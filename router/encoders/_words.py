"""What is made of a word alone, and kept: texts repeat their words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

USUAL_CHARS = 24
"""What is made of longer words is not kept, so that kept words stay within some megabytes."""

KEPT_WORDS = 8192
"""Words that are kept at most, each by one who makes something of them. When there would be more, all are given up."""


class ByWord(dict[str, T]):
    """`make` of each word that is looked up. Threads may share it."""

    def __init__(self, make: Callable[[str], T]) -> None:
        self._make = make

    def __missing__(self, word: str) -> T:
        made = self._make(word)
        if len(word) <= USUAL_CHARS:
            if len(self) >= KEPT_WORDS:
                self.clear()
            self[word] = made
        return made
