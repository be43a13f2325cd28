"""`embedding`: a short free text, by its vector in the router's own encoder."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from pydantic import Field

from router.answers import AnswerKind, KeyOf, Question, clip
from router.types import FloatArray, Record

_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")


class Options(Record):
    """`threshold` of the cosine, which `python -m benchmarks.answer_kinds` calibrates for an encoder; it has no
    default, because under the shipped encoder no threshold tells well (docs/results/strategies.md). An answer of more
    than `max_words` words has no key."""

    threshold: float = Field(gt=0, le=1)
    max_words: int = Field(default=40, ge=1, le=200)


def build(options: Options) -> AnswerKind:
    """Keys are numbers of groups: an answer joins the group whose first answer is nearest, where their cosine reaches
    the threshold and both name the same numbers, which a vector hardly tells apart; otherwise it begins one."""

    def key_for(question: Question) -> KeyOf | None:
        groups: list[tuple[FloatArray, tuple[str, ...]]] = []
        embed = question.embed

        def key(answer: str) -> str | None:
            text = " ".join(clip(answer).split())
            if embed is None or not re.search(r"\w", text) or len(text.split()) > options.max_words:
                return None
            vector = embed([text])[0]
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
            numbers = tuple(sorted(_NUMBER.findall(text)))
            near = [(float(first @ vector), i) for i, (first, named) in enumerate(groups) if named == numbers]
            cosine, nearest = max(near, default=(0.0, 0))
            if near and cosine >= options.threshold:
                return str(nearest)
            groups.append((vector, numbers))
            return str(len(groups) - 1)

        return None if embed is None else key

    return AnswerKind(key_for, is_slow=True)


EXAMPLES = (Options(threshold=0.9), Options(threshold=0.8, max_words=10))
