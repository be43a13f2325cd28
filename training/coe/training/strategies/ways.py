"""Ways to carry out each strategy, every one played on prompts that its rules were not fitted on. Rules for asking on
are those of optimal stopping by regression (Longstaff & Schwartz 2001).

Shapes: n prompts, m experts, l replies in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from coe.router.strategies.machines import SIGNALS, TELLS
from coe.router.strategies.types import StrategyName
from coe.router.types import BoolArray, Float64Array, IntArray
from coe.training.strategies.rehearsal import (
    Known,
    Played,
    Stage,
    passed,
    play_agree,
    play_escalation,
    play_sequence,
    play_vote,
    stages,
)

RIDGE = 3e-3
"""Strength of the penalty, as a share of the prompts (ours: 0.001 to 0.03 do not differ)."""
MOST_IN_ORDER = 3
"""Experts in a way that is not an order of all (ours)."""
PRICES = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Score that asking on must gain for what a mean expert costs (ours)."""
NEVER_PASS = np.array([[1.0, *[0.0] * (SIGNALS + TELLS - 1)]])


def regressed(signals: Float64Array, gain: Float64Array) -> Float64Array:
    """(s,) coefficients of what asking on gains (n,), by ridge regression on standardised signals."""
    if not len(signals):
        return np.zeros(signals.shape[1])
    mean, spread = signals.mean(axis=0), signals.std(axis=0) + 1e-9
    mean[0], spread[0] = 0.0, 1.0
    scaled = (signals - mean) / spread
    held = RIDGE * len(signals) * np.diag([0.0, *[1.0] * (signals.shape[1] - 1)]) + 1e-9 * np.eye(signals.shape[1])
    found = np.linalg.solve(scaled.T @ scaled + held, scaled.T @ gain) / spread
    found[0] -= found[1:] @ mean[1:]
    return np.asarray(found)


def stopping_rules(found: Sequence[Stage], costs: Float64Array, price: float) -> Float64Array:
    """(l - 1, SIGNALS) backwards from the last reply: what the rules after it lead to, less what it costs and less what
    would be served without it, regressed on what is known before it. `costs` (n, l) of the replies in order."""
    later = found[-1].score
    rules = np.zeros((len(found) - 1, SIGNALS))
    for i in range(len(rules) - 1, -1, -1):
        worth = later - price * costs[:, i + 1]
        is_open = ~found[i].is_decided
        rules[i] = regressed(found[i].signals[is_open], (worth - found[i].score)[is_open])
        later = np.where(found[i].goes_on(rules[i]), worth, found[i].score)
    return rules


@dataclass(frozen=True)
class Company:
    """The experts that ways are made of, best first, and what every expert (m,) costs in units of the mean one."""

    experts: tuple[int, ...]
    costs: Float64Array

    def orders(self) -> Iterator[tuple[int, ...]]:
        """Cheap before dear: every few of them, and all."""
        rising = sorted(self.experts, key=lambda e: (self.costs[e], self.experts.index(e)))
        for size in range(2, min(MOST_IN_ORDER, len(rising)) + 1):
            yield from combinations(rising, size)
        if len(rising) > MOST_IN_ORDER:
            yield tuple(rising)

    def units(self) -> Iterator[Float64Array]:
        """Amounts that a price is paid for: calls, and what they cost where that differs."""
        yield np.ones_like(self.costs)
        if np.ptp(self.costs) > 0:
            yield self.costs


@dataclass(frozen=True)
class Way:
    """A way with the `rules` (l - 1, SIGNALS) of all prompts, and how it was `played`: scores by those of the other
    folds, and whom those or the rules themselves ask, because near a threshold one may ask three times as often."""

    experts: tuple[int, ...]
    rules: Float64Array
    played: Played
    by_weight: bool = False


Play = Callable[[Float64Array], Played]
"""Plays all prompts by some rules."""


def crossed(
    fit: Callable[[BoolArray], Float64Array], play: Play, serve: Play, folds: IntArray
) -> tuple[Float64Array, Played]:
    """The rules of all prompts, and the play of each prompt by the rules of the other folds. As asked count all whom
    these or the rules and, in `serve`, votes that serve ask: what costs less is no gain that the score knows of."""
    rules = fit(np.ones(len(folds), dtype=bool))
    score, asked = np.zeros(len(folds)), serve(rules).asked.copy()
    for fold in np.unique(folds):
        own = folds == fold
        played = play(fit(~own))
        score[own] = played.score[own]
        asked[own] |= played.asked[own]
    return rules, Played(score, asked)


def votes(known: Known, folds: IntArray, company: Company, served: Known) -> Iterator[Way]:
    for size in range(2, len(company.experts) + 1):
        for experts in combinations(company.experts, size):
            yield Way(experts, np.zeros((0, SIGNALS)), play_vote(known, experts))


def agreements(known: Known, folds: IntArray, company: Company, served: Known) -> Iterator[Way]:
    for one, other in combinations(company.experts, 2):
        for arbiter in company.experts:
            if arbiter not in (one, other):
                yield Way((one, other, arbiter), np.zeros((0, SIGNALS)), play_agree(known, one, other, arbiter))


def sequences(known: Known, folds: IntArray, company: Company, served: Known) -> Iterator[Way]:
    yield from sequences_in(known, folds, company, served, company.experts, by_weight=True)
    for experts in company.orders():
        yield from sequences_in(known, folds, company, served, experts, by_weight=False)


def sequences_in(
    known: Known, folds: IntArray, company: Company, served: Known, experts: tuple[int, ...], *, by_weight: bool
) -> Iterator[Way]:
    """One order at every price, or each prompt's own by weight."""

    def stages_of(known: Known) -> tuple[IntArray, list[Stage], Play]:
        order = known.fixed(experts)
        if by_weight:
            order = known.by_weight[np.isin(known.by_weight, experts)].reshape(len(folds), -1)
        found = stages(known, order)
        return order, found, lambda rules: play_sequence(known, order, found, rules)

    (order, found, play), (*_, serve) = stages_of(known), stages_of(served)
    for unit in company.units():
        costs = unit[order]
        for price in PRICES:

            def fit(rows: BoolArray, costs: Float64Array = costs, price: float = price) -> Float64Array:
                return stopping_rules([part.take(rows) for part in found], costs[rows], price)

            yield Way(experts, *crossed(fit, play, serve, folds), by_weight)


def escalations(known: Known, folds: IntArray, company: Company, served: Known) -> Iterator[Way]:
    for experts in company.orders():
        if len(experts) <= MOST_IN_ORDER:
            yield from escalations_to(known, folds, company, served, experts)


def escalations_to(
    known: Known, folds: IntArray, company: Company, served: Known, experts: tuple[int, ...]
) -> Iterator[Way]:
    first, last, rest = passed(known, experts), passed(served, experts), list(experts[1:])
    on = play_escalation(known, experts, first, NEVER_PASS[0])
    gain, spent = on.score - first.score, on.asked[:, rest] @ company.costs[rest]
    for price in PRICES:

        def fit(rows: BoolArray, worth: Float64Array = gain - price * spent) -> Float64Array:
            return regressed(first.signals[rows], worth[rows])[None]

        def play(rules: Float64Array) -> Played:
            return play_escalation(known, experts, first, rules[0])

        def serve(rules: Float64Array) -> Played:
            return play_escalation(served, experts, last, rules[0])

        yield Way(experts, *crossed(fit, play, serve, folds))


WAYS: dict[StrategyName, Callable[[Known, IntArray, Company, Known], Iterator[Way]]] = {
    StrategyName.AGREE: agreements,
    StrategyName.VOTE: votes,
    StrategyName.SEQUENTIAL: sequences,
    StrategyName.ESCALATE: escalations,
}
