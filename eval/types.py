"""The interface of a grader."""

from __future__ import annotations

from typing import Protocol


class Grader(Protocol):
    """Grades one answer. The reference values are in the grader's Options, so an answer is all it needs."""

    def __call__(self, answer: str) -> float:
        """Score in [0, 1]; 1 is right. Any text is a legal answer: a grader never raises because of what it says."""
        ...
