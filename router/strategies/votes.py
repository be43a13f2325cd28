"""Probabilities that each answer so far is right. Shapes: m experts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from router.strategies.types import Replies, Reply

SIGNALS, TELLS = 11, 2
"""Numbers that `Votes.signals` and `tells` give."""


@dataclass(frozen=True)
class Votes:
    """Weights of experts' votes on one query, each of m numbers.

    An answer's probability of being right is proportional to exp(sum of its voters' weights), that of all being wrong
    to exp(doubt). With weights log(q (K - 1) / (1 - q)) of accuracies q over K options this is naive Bayes, which takes
    errors to be independent; training fits the weights together, so experts that err alike weigh less.
    """

    weights: tuple[float, ...]
    doubt: float

    def worth(self, replies: Replies) -> dict[str, float]:
        """Sum of the voters' weights of each answer given so far."""
        sums: dict[str, float] = {}
        for expert, reply in sorted(replies.items()):
            if reply.key is not None:
                sums[reply.key] = sums.get(reply.key, 0.0) + self.weights[expert]
        return sums

    def posterior(self, replies: Replies) -> dict[str, float]:
        """Probability of each answer given so far, most probable first; they sum to less than 1."""
        worth = self.worth(replies)
        top = max(self.doubt, *worth.values()) if worth else self.doubt
        total = math.exp(self.doubt - top) + sum(math.exp(value - top) for value in worth.values())
        ranked = sorted(worth.items(), key=lambda pair: (-pair[1], pair[0]))
        return {key: math.exp(value - top) / total for key, value in ranked}

    def speaker(self, replies: Replies, key: str) -> int:
        """The heaviest voter for an answer: its reply is served."""
        return min(voters(replies, key), key=lambda expert: (-self.weights[expert], expert))

    def is_decided(self, replies: Replies, rest: Iterable[int]) -> bool:
        """The first answer stays the first whatever the `rest` of the experts would say."""
        first, second = (*sorted(self.worth(replies).values(), reverse=True), 0.0, 0.0)[:2]
        return first > max(second, 0.0) + sum(max(self.weights[e], 0.0) for e in rest)

    def signals(self, replies: Replies, rest: Iterable[int]) -> tuple[float, ...]:
        """Features for the rule that decides on asking another expert: 1; the posterior of the first and of the second
        answer and of none, with products; the weight of those who could still be asked; the doubt, alone and times the
        first posterior; the replies without an answer."""
        probs = list(self.posterior(replies).values())
        first, second = (*probs, 0.0, 0.0)[:2]
        ahead, silent = sum(self.weights[e] for e in rest), sum(reply.key is None for reply in replies.values())
        squares = (first * first, first * second, second * second)
        return (1.0, first, second, 1 - sum(probs), *squares, ahead, self.doubt, self.doubt * first, float(silent))


def tells(reply: Reply) -> tuple[float, float]:
    """Signs of a cheap reply itself: the mean log-probability of its tokens, 0 where it is not known, and 1 where it is
    not."""
    return (0.0, 1.0) if reply.logprob is None else (reply.logprob, 0.0)


def voters(replies: Replies, key: str) -> list[int]:
    """Experts that gave an answer, by number."""
    return sorted(expert for expert, reply in replies.items() if reply.key == key)


def first_served(experts: Iterable[int], replies: Replies) -> int | None:
    """The first of some experts that replied at all."""
    return next((e for e in experts if e in replies and not replies[e].is_failure), None)
