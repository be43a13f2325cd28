"""The strategies. Each is for one query and says, after every set of replies, whom to ask or whose reply to serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.strategies.types import Ask, Replies, Settled
from router.strategies.votes import SIGNALS, Votes, first_served, tells, voters

Rule = tuple[float, ...]
"""Coefficients of `Votes.signals`, for `Escalate` of `tells`, too: what asking on gains, less its price. Above 0 the
next expert is asked."""


def settle(experts: Sequence[int], replies: Replies, votes: Votes) -> Settled:
    """Serves the most probable answer, or, where nobody gave one, the first reply in the order of `experts`."""
    ranked = votes.posterior(replies)
    if not ranked:
        return Settled(first_served(experts, replies))
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
