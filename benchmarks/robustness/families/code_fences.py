"""Fences as people paste them: around the whole text, or around its material or code. Nothing inside is changed."""

from __future__ import annotations

import re

import numpy as np

from benchmarks.robustness.prose import has_fence, is_small_talk

MATERIAL = re.compile(r"(?s)(?P<instruction>[^\n]+:)[ \t]*\n+(?P<material>\S.*\S)\s*")
CODE_TAIL = re.compile(
    r"(?s)(?P<instruction>[^\n:]+:)\s+(?P<material>(?:(?i:select|insert|update|delete|create)\s|def\s|class\s|function\s|"
    r"const\s|let\s|var\s|import\s|for\s*\(|\$ |#include|[\w.]+\().*\S)\s*"
)


def variants(text: str, rng: np.random.Generator) -> dict[str, str]:
    """Up to four; none where the text has a fence already, or is small talk."""
    if not text.strip() or has_fence(text) or is_small_talk(text):
        return {}
    fenced = {"whole": f"```\n{text}\n```", "whole_text": f"```text\n{text}\n```"}
    for name, pattern in (("material", MATERIAL), ("code", CODE_TAIL)):
        if found := pattern.fullmatch(text.strip()):
            fenced[name] = f"{found['instruction']}\n```\n{found['material']}\n```"
    return fenced
