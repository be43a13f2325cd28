"""Fences as people paste them: around the whole text, or around its material or code. Nothing inside is changed."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from eval.robustness.cases import Family, Variant
from eval.robustness.prose import has_fence, is_small_talk

MATERIAL = re.compile(r"(?s)(?P<instruction>[^\n]+:)[ \t]*\n+(?P<material>\S.*\S)\s*")
CODE_TAIL = re.compile(
    r"(?s)(?P<instruction>[^\n:]+:)\s+(?P<material>(?:(?i:select|insert|update|delete|create)\s|def\s|class\s|function\s|"
    r"const\s|let\s|var\s|import\s|for\s*\(|\$ |#include|[\w.]+\().*\S)\s*"
)


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class CodeFences:
    """Up to four variants; none where the text has a fence already, or is small talk."""

    options: Options

    def __call__(self, text: str, rng: np.random.Generator) -> tuple[Variant, ...]:
        if not text.strip() or has_fence(text) or is_small_talk(text):
            return ()
        variants = [Variant("whole", f"```\n{text}\n```"), Variant("whole_text", f"```text\n{text}\n```")]
        for name, pattern in (("material", MATERIAL), ("code", CODE_TAIL)):
            found = pattern.fullmatch(text.strip())
            if found:
                variants.append(Variant(name, f"{found['instruction']}\n```\n{found['material']}\n```"))
        return tuple(variants)


def build(options: Options) -> Family:
    return CodeFences(options)


EXAMPLES = (Options(),)
