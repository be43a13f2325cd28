"""The strategies. Each is for one query and says, after every set of replies, whom to ask or whose reply to serve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coe.router.strategies.types import Ask, Replies, Reply, Settled

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


Rule = tuple[float, ...]
"""Coefficients of `Votes.signals`, for `Escalate` of `tells`, too: what asking on gains, less its price. Above 0 the
next expert is asked."""


def settle(experts: Sequence[int], replies: Replies, votes: Votes) -> Settled:
    """Serves the most probable answer, or, where nobody gave one, the first reply in the order of `experts`."""
    ranked = votes.posterior(replies)
    if not ranked:
        return Settled(next((e for e in experts if e in replies and not replies[e].is_failure), None))
    key, confidence = next(iter(ranked.items()))
    return Settled(votes.speaker(replies, key), confidence, len(voters(replies, key)))


def unasked(experts: Sequence[int], replies: Replies) -> tuple[int, ...]:
    return tuple(expert for expert in experts if expert not in replies)


@dataclass(frozen=True)
class Vote:
    """All are asked at once; the most probable answer is served."""

    experts: tuple[int, ...]
    votes: Votes

    def step(self, replies: Replies) -> Ask | Settled:
        missing = unasked(self.experts, replies)
        return Ask(missing) if missing else settle(self.experts, replies, self.votes)


@dataclass(frozen=True)
class Agree:
    """Two probes at once. Their answer is served where it is the same, else the arbiter's; where the arbiter gives
    none, the most probable one."""

    probes: tuple[int, int]
    arbiter: int
    votes: Votes

    @property
    def experts(self) -> tuple[int, ...]:
        return (*self.probes, self.arbiter)

    def step(self, replies: Replies) -> Ask | Settled:
        if missing := unasked(self.probes, replies):
            return Ask(missing)
        one, other = (replies[probe].key for probe in self.probes)
        if one is not None and one == other:
            return settle(self.probes, replies, self.votes)
        if self.arbiter not in replies:
            return Ask((self.arbiter,))
        ruling = replies[self.arbiter].key
        if ruling is None:
            return settle((self.arbiter, *self.probes), replies, self.votes)
        confidence = self.votes.posterior(replies)[ruling]
        return Settled(self.arbiter, confidence, len(voters(replies, ruling)))


@dataclass(frozen=True)
class Sequential:
    """One after the other, in order, as long as the rule of that many replies says that asking on gains more than it
    costs (optimal stopping by regression, Longstaff & Schwartz 2001); then the most probable answer is served.
    Where further replies could change nothing, none is asked for. `rules[i]` is for i + 1 replies."""

    experts: tuple[int, ...]
    rules: tuple[Rule, ...]
    votes: Votes

    def step(self, replies: Replies) -> Ask | Settled:
        asked = [expert for expert in self.experts if expert in replies]
        if asked and (len(asked) == len(self.experts) or not self._goes_on(replies, asked)):
            return settle(self.experts, replies, self.votes)
        return Ask(unasked(self.experts, replies)[:1])

    def _goes_on(self, replies: Replies, asked: Sequence[int]) -> bool:
        rule, rest = self.rules[len(asked) - 1], unasked(self.experts, replies)
        if self.votes.is_decided(replies, rest):
            return False
        return sum(a * b for a, b in zip(rule, self.votes.signals(replies, rest), strict=True)) > 0


@dataclass(frozen=True)
class Escalate:
    """The cheap expert first; its reply is served where the rule lets it pass. Else the strong one is asked, unless a
    `second` cheap expert gives the same answer; its own reply is served, if it gives an answer."""

    cheap: int
    strong: int
    rule: Rule
    votes: Votes
    second: int | None = None

    @property
    def experts(self) -> tuple[int, ...]:
        return tuple(e for e in (self.cheap, self.second, self.strong) if e is not None)

    @property
    def wants_logprobs(self) -> int | None:
        """The expert whose log-probabilities the rule looks at."""
        return self.cheap if any(self.rule[SIGNALS:]) else None

    def step(self, replies: Replies) -> Ask | Settled:
        if self.cheap not in replies:
            return Ask((self.cheap,))
        key = replies[self.cheap].key
        own = {self.cheap: replies[self.cheap]}
        signals = (*self.votes.signals(own, self.experts[1:]), *tells(replies[self.cheap]))
        if key is not None and sum(a * b for a, b in zip(self.rule, signals, strict=False)) <= 0:
            return settle(self.experts, replies, self.votes)
        if key is not None and self.second is not None:
            if self.second not in replies:
                return Ask((self.second,))
            if replies[self.second].key == key:
                return settle(self.experts, replies, self.votes)
        if self.strong not in replies:
            return Ask((self.strong,))
        ruling = replies[self.strong].key
        if ruling is None:
            return settle((self.strong, self.cheap), replies, self.votes)
        return Settled(self.strong, self.votes.posterior(replies)[ruling], len(voters(replies, ruling)))
