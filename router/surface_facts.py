"""What a text looks like in twenty-odd cheap numbers: length, language, code, math, options, question words.

For the trees, which need few plain numbers; the encoder `surface` has many more for linear classifiers.
"""

from __future__ import annotations

import math
import re

import numpy as np

from router.types import FloatArray

MAX_CHARS = 2000
"""Characters after these are not looked at: an instruction stands at the head, and time is bounded."""

HEAD_WORDS = 60
QUESTION_WORDS = ("what", "which", "who", "how", "why", "when", "where", "is", "write", "if")
FUNCTION_WORDS: dict[str, frozenset[str]] = {
    "en": frozenset(["the", "of", "and", "to", "is", "in", "that", "for", "with", "are"]),
    "es": frozenset(["el", "los", "las", "y", "que", "del", "para", "con", "una", "por"]),
    "fr": frozenset(["le", "les", "et", "des", "est", "dans", "une", "pour", "du", "au"]),
    "de": frozenset(["der", "das", "und", "ist", "nicht", "ein", "eine", "mit", "den", "von"]),
}
OPTION = re.compile(r"(?m)^\s*\(?[A-Ja-j1-9][).:]\s")
CODE = re.compile(r"```|\bdef \w+\(|\breturn\b|=>|==|;\s*$|\bimport \w+|\w+\(\)", re.MULTILINE)
MATH = re.compile(r"\\[a-z]+|\$[^$]|\d\s*[-+*/^=]\s*\d|√|≤|≥|∑|π")
NON_LATIN = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af\u0400-\u04ff\u0600-\u06ff\u0900-\u097f]")
ACCENTS = re.compile(r"[\u00c0-\u024f¿¡]")


def surface_facts(text: str) -> FloatArray:
    """(s,) float32, none of them negative or beyond about 10."""
    head = text[:MAX_CHARS]
    words = head.lower().split(maxsplit=HEAD_WORDS)[:HEAD_WORDS]
    distinct = set(words)
    size = max(len(head), 1)
    numbers = [
        math.log1p(len(text)),
        math.log1p(head.count("\n")),
        sum(map(str.isdigit, head)) / size,
        sum(map(str.isupper, head)) / size,
        math.log1p(len(OPTION.findall(head))),
        math.log1p(len(CODE.findall(head))),
        math.log1p(len(MATH.findall(head))),
        len(NON_LATIN.findall(head)) / size,
        len(ACCENTS.findall(head)) / size,
        math.log1p(head.count("?")),
        float(head.rstrip().endswith("?")),
        math.log1p(head.count('"')),
        *(len(distinct & marks) / 10 for marks in FUNCTION_WORDS.values()),
        *(float(word in words[:12]) for word in QUESTION_WORDS),
    ]
    return np.array(numbers, dtype=np.float32)
