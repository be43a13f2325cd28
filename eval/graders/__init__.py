"""Graders: one file per kind, the file name is the kind. `Grader` is what `build` returns."""

from __future__ import annotations

from collections.abc import Callable

Grader = Callable[[str], float]
"""Grades one answer with a score in [0, 1]; 1 is right. The reference values are in its Options, so an answer is all it
needs. Any text is a legal answer: a grader never raises because of what it says."""
