"""Strategies played through on answers that are known, many prompts at a time.

It does what `router.strategies.machines` does one query at a time; a test holds the two together. Shapes: n prompts, m
experts, l replies in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from coe.router.types import BoolArray, Float64Array, IntArray
from coe.training.strategies.vote_fit import posteriors, utilities
from coe.training.types import NO_ANSWER


@dataclass(frozen=True)
class Known:
    """Answers of all experts: `keys` and `scores` (n, m) as in `Ballots`; `weights` (n, m + 1) of their votes,
    fitted without the prompt; `logprobs` (n, m), NaN where unknown, None where none is known."""

    keys: IntArray
    scores: Float64Array
    weights: Float64Array
    logprobs: Float64Array | None = None

    def tells(self, expert: int) -> Float64Array:
        """(n, TELLS) as `router.strategies.machines.tells`."""
        nothing = np.full(len(self.keys), np.nan)
        known = nothing if self.logprobs is None else self.logprobs[:, expert]
        return np.stack([np.nan_to_num(known), np.isnan(known).astype(np.float64)], axis=1)

    @cached_property
    def by_weight(self) -> IntArray:
        """(n, m) experts, the heaviest voter first."""
        return np.argsort(-self.weights[:, :-1], axis=1, kind="stable")

    def fixed(self, experts: Sequence[int]) -> IntArray:
        """(n, l) the same order for all."""
        return np.tile(np.array(experts, dtype=np.int64), (len(self.keys), 1))


@dataclass(frozen=True)
class Played:
    """Result of a strategy: `score` (n,) of what was served, `asked` (n, m)."""

    score: Float64Array
    asked: BoolArray


@dataclass(frozen=True)
class Stage:
    """After some replies: `score` (n,) of what would be served now, `signals` (n, SIGNALS), and whether further replies
    could change nothing (n,)."""

    score: Float64Array
    signals: Float64Array
    is_decided: BoolArray

    def take(self, rows: BoolArray) -> Stage:
        return Stage(self.score[rows], self.signals[rows], self.is_decided[rows])

    def goes_on(self, rule: Float64Array) -> BoolArray:
        """(n,) where asking on gains more than it costs."""
        return ~self.is_decided & (self.signals @ rule > 0)


def asked_of(known: Known, order: IntArray, count: int | IntArray) -> BoolArray:
    """(n, m) the first of an order (n, l), as many of all prompts or of each (n,)."""
    asked = np.zeros(known.keys.shape, dtype=bool)
    np.put_along_axis(asked, order, np.arange(order.shape[1]) < np.reshape(count, (-1, 1)), axis=1)
    return asked


def stage(known: Known, order: IntArray, count: int) -> Stage:
    """After the first `count` of an order (n, l) replied."""
    asked, rows = asked_of(known, order, count), np.arange(len(order))
    votes, doubt = known.weights[:, :-1], known.weights[:, -1]
    keys = np.where(asked, known.keys, NO_ANSWER)
    probs = posteriors(keys, known.weights)
    leader = probs.argmax(axis=1)
    gave = keys == leader[:, None]
    speaker = np.where(gave, votes, -np.inf).argmax(axis=1)
    served = np.where(gave.any(axis=1), speaker, order[:, 0])
    ranked = -np.sort(-probs, axis=1)
    first, second = ranked[:, 0], ranked[:, 1]
    rest = np.take_along_axis(votes, order[:, count:], axis=1)
    ahead = rest.sum(axis=1)
    silent = (asked & (known.keys == NO_ANSWER)).sum(axis=1)
    parts = [np.ones(len(order)), first, second, 1 - probs.sum(axis=1), first**2, first * second, second**2]
    best = -np.sort(-utilities(keys, known.weights)[:, :-1], axis=1)
    is_decided = best[:, 0] > np.maximum(best[:, 1], 0.0) + np.maximum(rest, 0.0).sum(axis=1)
    signals = np.stack([*parts, ahead, doubt, doubt * first, silent], axis=1)
    return Stage(known.scores[rows, served], signals, is_decided)


def passed(known: Known, experts: Sequence[int]) -> Stage:
    """After the cheap expert's reply, with the signs of that reply itself among the signals."""
    first = stage(known, known.fixed(experts), 1)
    return replace(first, signals=np.hstack([first.signals, known.tells(experts[0])]))


def stages(known: Known, order: IntArray) -> list[Stage]:
    """After each reply of an order (n, l)."""
    return [stage(known, order, count + 1) for count in range(order.shape[1])]


def own_ruling(known: Known, last: int, otherwise: Float64Array) -> Float64Array:
    """(n,) the score of an expert's own answer, or `otherwise` where it gives none."""
    return np.where(known.keys[:, last] == NO_ANSWER, otherwise, known.scores[:, last])


def play_vote(known: Known, experts: Sequence[int]) -> Played:
    order = known.fixed(experts)
    return Played(stage(known, order, len(experts)).score, asked_of(known, order, len(experts)))


def play_agree(known: Known, one: int, other: int, arbiter: int) -> Played:
    is_same = (known.keys[:, one] == known.keys[:, other]) & (known.keys[:, one] != NO_ANSWER)
    all_three = stage(known, known.fixed((arbiter, one, other)), 3).score
    agreed = stage(known, known.fixed((one, other)), 2).score
    asked = asked_of(known, known.fixed((one, other)), 2)
    asked[:, arbiter] = ~is_same
    return Played(np.where(is_same, agreed, own_ruling(known, arbiter, all_three)), asked)


def play_sequence(known: Known, order: IntArray, found: Sequence[Stage], rules: Float64Array) -> Played:
    """`rules` (l - 1, SIGNALS); `found` are the stages of `order` (n, l)."""
    count, lives = np.ones(len(order), dtype=np.int64), np.ones(len(order), dtype=bool)
    for i, rule in enumerate(rules):
        lives &= found[i].goes_on(rule)
        count += lives
    score = np.stack([stage.score for stage in found], axis=1)[np.arange(len(order)), count - 1]
    return Played(score, asked_of(known, order, count))


def play_escalation(known: Known, experts: Sequence[int], first: Stage, rule: Float64Array) -> Played:
    """`experts`: the cheap one, maybe a second, the strong one. `first` is the stage `passed` gives."""
    cheap, *seconds, strong = experts
    has_key = known.keys[:, cheap] != NO_ANSWER
    goes_on = ~has_key | (first.signals @ rule > 0)
    asked = asked_of(known, known.fixed((cheap,)), 1)
    agreed, is_same = first.score, np.zeros(len(has_key), dtype=bool)
    everybody = (strong, cheap, *seconds)
    if seconds:
        asked[:, seconds[0]] = goes_on & has_key
        is_same = has_key & (known.keys[:, cheap] == known.keys[:, seconds[0]])
        agreed = stage(known, known.fixed((cheap, seconds[0])), 2).score
    asked[:, strong] = goes_on & ~is_same
    heard = replace(known, keys=np.where(asked, known.keys, NO_ANSWER))
    otherwise = stage(heard, known.fixed(everybody), len(everybody)).score
    score = np.where(goes_on, np.where(is_same, agreed, own_ruling(known, strong, otherwise)), first.score)
    return Played(score, asked)
