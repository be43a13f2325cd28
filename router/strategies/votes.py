"""What the answers so far say of which one is right. Shapes: m experts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from router.strategies.types import Replies

SIGNALS = 9
"""Numbers that `Votes.signals` gives."""

FAR = 3.0
"""Standard deviations at which a reply's length is cut: beyond, it says no more (ours)."""


@dataclass(frozen=True)
class Votes:
    """Weights of experts' votes on one query, each of m numbers.

    An answer's probability of being right is proportional to exp(sum of its voters' weights), that of all being wrong
    to exp(doubt). With weights log(q (K - 1) / (1 - q)) of accuracies q over K options this is naive Bayes, which takes
    errors to be independent; training fits the weights together, so experts that err alike weigh less. `typical` and
    `spread` are of the logarithm of an expert's reply in tokens, plus one.
    """

    weights: tuple[float, ...]
    doubt: float
    typical: tuple[float, ...]
    spread: tuple[float, ...]

    def posterior(self, replies: Replies) -> dict[str, float]:
        """Probability of each answer given so far, most probable first; they sum to less than 1."""
        worth: dict[str, float] = {}
        for expert, reply in sorted(replies.items()):
            if reply.key is not None:
                worth[reply.key] = worth.get(reply.key, 0.0) + self.weights[expert]
        top = max(self.doubt, *worth.values()) if worth else self.doubt
        total = math.exp(self.doubt - top) + sum(math.exp(value - top) for value in worth.values())
        ranked = sorted(worth.items(), key=lambda pair: (-pair[1], pair[0]))
        return {key: math.exp(value - top) / total for key, value in ranked}

    def speaker(self, replies: Replies, key: str) -> int:
        """The heaviest voter for an answer: its reply is served."""
        return min(voters(replies, key), key=lambda expert: (-self.weights[expert], expert))

    def signals(self, replies: Replies, last: int) -> tuple[float, ...]:
        """What a rule for going on looks at: 1; the posterior of the first and of the second answer and of none, with
        products; the length of the `last` reply in standard deviations from the expert's usual one, and its square."""
        probs = list(self.posterior(replies).values())
        first, second = (*probs, 0.0, 0.0)[:2]
        tokens = replies[last].tokens
        far = 0.0 if tokens is None else (math.log1p(tokens) - self.typical[last]) / self.spread[last]
        far = min(max(far, -FAR), FAR)
        return (1.0, first, second, 1 - sum(probs), first * first, first * second, second * second, far, far * far)


def voters(replies: Replies, key: str) -> list[int]:
    """Experts that gave an answer, by number."""
    return sorted(expert for expert, reply in replies.items() if reply.key == key)


def first_served(experts: Iterable[int], replies: Replies) -> int | None:
    """The first of some experts that replied at all."""
    return next((e for e in experts if e in replies and not replies[e].is_failure), None)
