"""Experts that are not language models, a file a kind. Each answers a text, or abstains with None in microseconds."""

from __future__ import annotations

from typing import Protocol


class Builtin(Protocol):
    """Answers a text that it is sure to understand."""

    def answer(self, text: str) -> str | None:
        """The answer; None where any word of the text is not understood."""
        ...
