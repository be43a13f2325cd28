"""Grades of answers by a kind, from its options."""

from __future__ import annotations

import sys

from coe.router.answers import Score
from coe.router.types import Record


def grader(options: Record) -> Score:
    score: Score = sys.modules[type(options).__module__].build(options).score
    return score
