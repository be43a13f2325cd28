"""Two models on the same prompts: who is right, and whether the difference is sure. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.strategies.types import AnswerKind, Question


@dataclass(frozen=True, slots=True)
class Comparison:
    """Prompts on which a new model and the one before were right; `gained` and `lost` are those where only the new one
    was, and only the other."""

    n: int
    before: int
    after: int
    gained: int
    lost: int

    @property
    def difference(self) -> float:
        return (self.gained - self.lost) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% of the difference of shares: the exact interval (Clopper & Pearson 1934) of the gained among the prompts
        that differ, which is McNemar's exact test turned into an interval; (0, 0) where none differs."""
        from scipy.stats import binomtest

        differing = self.gained + self.lost
        if not differing:
            return 0.0, 0.0
        low, high = binomtest(self.gained, differing).proportion_ci(method="exact")
        return (2 * low - 1) * differing / self.n, (2 * high - 1) * differing / self.n

    @property
    def is_better(self) -> bool:
        """Returns True where the new model is surely better."""
        return self.interval[0] > 0

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.before / self.n:.0%} before, {self.after / self.n:.0%} now on {self.n} held-out prompts: "
            f"{self.difference:+.1%} [{low:+.1%}, {high:+.1%}]"
        )


def compare(
    kind: AnswerKind, prompts: Sequence[str], right: Sequence[str], before: Sequence[str], after: Sequence[str]
) -> Comparison:
    """Counts answers whose key is that of the right one (n each)."""
    was, now = (
        [is_right(kind, *each) for each in zip(prompts, right, given, strict=True)] for given in (before, after)
    )
    gained = sum(b and not a for a, b in zip(was, now, strict=True))
    lost = sum(a and not b for a, b in zip(was, now, strict=True))
    return Comparison(len(right), sum(was), sum(now), gained, lost)


def is_right(kind: AnswerKind, prompt: str, right: str, given: str) -> bool:
    """Returns True where both have a key, and the same."""
    key_of = kind.key_for(Question(prompt))
    key = None if key_of is None else key_of(right)
    return key_of is not None and key is not None and key == key_of(given)
