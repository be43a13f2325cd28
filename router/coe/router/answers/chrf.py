"""`chrf`: character n-gram F-score against reference texts."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import Field, StringConstraints

from coe.router.answers import AnswerKind, clip
from coe.router.types import Record


class Options(Record):
    """The score is the best F over the references, in [0, 1].

    chrF (Popovic 2015, "chrF: character n-gram F-score for automatic MT evaluation", WMT15, section 2):
    `F = (1 + beta^2) * P * R / (beta^2 * P + R)`, where P and R are the character n-gram precision and recall averaged
    over n = 1 .. `max_n`, white space removed. The defaults n = 6, beta = 2 are chrF2. As in sacreBLEU, the average
    runs over the orders for which both texts are long enough, so that a two-letter word can be graded.

    `lowercase` (ours) compares case-folded text, since case carries little in one-word translations. With a `threshold`
    the score is 1 when F reaches it and 0 below.
    """

    references: tuple[Annotated[str, StringConstraints(pattern=r"\S")], ...] = Field(min_length=1)
    max_n: int = Field(default=6, ge=1, le=10)
    beta: float = Field(default=2.0, gt=0, le=10)
    lowercase: bool = True
    threshold: float | None = Field(default=None, gt=0, le=1)


def _f_score(answer: tuple[Counter[str], ...], reference: tuple[Counter[str], ...], beta: float) -> float:
    precisions: list[float] = []
    recalls: list[float] = []
    for given, wanted in zip(answer, reference, strict=True):
        if given and wanted:
            shared = (given & wanted).total()
            precisions.append(shared / given.total())
            recalls.append(shared / wanted.total())
    if not precisions or not any(precisions):
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    weight = beta * beta
    return min(1.0, (1 + weight) * precision * recall / (weight * precision + recall))


def build(options: Options) -> AnswerKind:
    """Scores are F, or 1 and 0 with a threshold."""

    def counted(text: str) -> tuple[Counter[str], ...]:
        folded = text.casefold() if options.lowercase else text
        solid, sizes = "".join(folded.split()), range(1, options.max_n + 1)
        return tuple(Counter(solid[i : i + n] for i in range(len(solid) - n + 1)) for n in sizes)

    references = tuple(counted(reference) for reference in options.references)

    def score(answer: str) -> float:
        given = counted(clip(answer))
        score = max(_f_score(given, reference, options.beta) for reference in references)
        return score if options.threshold is None else float(score >= options.threshold)

    return AnswerKind(score=score)


EXAMPLES = (
    Options(references=("Where is the station?",)),
    Options(references=("el gato duerme", "el gato está durmiendo"), threshold=0.6),
)
