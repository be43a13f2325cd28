"""The one rule by which a category changes hands: bets on its challenger, by answers from after it was named. Pure.

A challenger answers a known share of its category's queries (router.exploration), and who serves most of the others.
With r the reward of an answer, b what rewards were before it, p_c and p_s the logged chances of both, and w the reply
weight, the *gain* of an answer is

    w (r - b) / p_c  if the challenger gave it,    -w (r - b) / p_s  if the expert that serves gave it.

Its mean is by how much the challenger is better, whatever any model says; `least` is what its price asks for. Who bets
a share of the capital on each gain beyond that cannot win on average unless some challenger is better, however
challengers are named, refitted or renamed: a bet follows from what was logged before it. So one capital over all
categories, from 1 on, reaches ENOUGH with a chance of at most 1 / ENOUGH, however often it is looked at (Ville 1939;
Waudby-Smith & Ramdas, JRSS-B 2024). Stakes decide only how fast it grows: gain / variance is the best for a gain
(Kelly 1956), and a quarter of the capital is staked for each of SHARES_OF_LEAD.

All that a bet needs is in the log, so the capital is worked out anew in every round, and answers that were rated late
or erased since are counted as they are. Shapes: n bets, k rows of the map, m experts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from coe.router.types import Float64Array, IntArray
from coe.training.change_points import ChangePoint, is_outdated
from coe.training.evidence import category_rows
from coe.training.feedback_bias import counted_share
from coe.training.log_table import LogTable

SHARES_OF_LEAD = np.array([0.25, 0.5, 1.0, 2.0])
"""Gains that stakes are planned for, as shares of the lead that the router predicted when it decided: a challenger is
half as good as it looks, or twice (ours; benchmarks/LOG.md)."""

ENOUGH = 20.0
"""Capital at which categories move: without a better challenger it is ever reached with a chance of at most 5%."""

WITHOUT_ONE = 15.0
"""Capital that has to be there without any one key's answers: the luckiest of forty honest keys takes a third of a
standard error with it (ours)."""

OWN = 2.0
"""Capital of the bets on one challenger above which it takes its category over, once ENOUGH is there (ours)."""

LEAST_CHANCE = 0.1
"""Chance of a challenger, and of who serves, from which on answers are bet on; with less, one answer would decide."""

MOST_STAKE = 0.5
"""Largest share of the capital that a bet can lose (ours)."""

PRIOR_ANSWERS, PRIOR_REWARD, PRIOR_SQUARE = 20.0, 0.5, 1.0
"""Reward, and square of a gain, that are expected before the first bet, and the answers that this counts as (ours)."""


@dataclass(frozen=True)
class Bets:
    """Bets in order of time: the `row` of the map and the `challenger` (n,), the `gain` beyond its price (n,), whose
    answer it was (`key` (n,), negative for who may not be left out), and by how much the capital of each planned gain
    grew (`growth` (n, 4), in logarithms)."""

    row: IntArray
    challenger: IntArray
    gain: Float64Array
    key: IntArray
    growth: Float64Array

    def __len__(self) -> int:
        return len(self.row)

    @property
    def capital(self) -> float:
        """Of all bets together, with a capital of 1 at first."""
        return capital_of(self.growth.sum(axis=0))

    @property
    def without_one(self) -> float:
        """The least that is left of it without the answers of any one key."""
        total, keys = self.growth.sum(axis=0), np.unique(self.key[self.key >= 0])
        return min((capital_of(total - self.growth[self.key == key].sum(axis=0)) for key in keys), default=self.capital)

    @property
    def is_enough(self) -> bool:
        return self.capital >= ENOUGH and self.without_one >= WITHOUT_ONE

    @property
    def own(self) -> dict[tuple[int, int], float]:
        """Capital of the bets on each challenger (row, number of the expert) alone."""
        pairs = {(int(row), int(expert)) for row, expert in zip(self.row, self.challenger, strict=True)}
        return {pair: capital_of(self.growth[self.on(*pair)].sum(axis=0)) for pair in sorted(pairs)}

    def on(self, row: int, challenger: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(n,) bets on one challenger."""
        return np.asarray((self.row == row) & (self.challenger == challenger))

    def moves(self) -> dict[int, int]:
        """Row -> the challenger that takes it over; none unless the capital is enough."""
        own = self.own
        best = max(own.values(), default=0.0)
        found: dict[int, int] = {}
        for (row, expert), capital in sorted(own.items(), key=lambda each: each[1]) if self.is_enough else ():
            if capital >= min(OWN, best):
                found[row] = expert
        return found


def capital_of(growth: Float64Array) -> float:
    """Mean of the capitals of the planned gains, whose logarithms are given (4,)."""
    return math.exp(min(float(logsumexp(growth)) - math.log(len(growth)), 700.0))


def bets_on(
    log: LogTable,
    rows: tuple[str, ...],
    experts: tuple[str, ...],
    serving: IntArray,
    prices: Float64Array,
    since: float,
    changes: tuple[ChangePoint, ...] = (),
) -> Bets:
    """Bets by the answers of a log since a time, Unix seconds.

    Answers from before a change of anybody's quality in their category are left out: they say nothing of who is better
    today. No key is more than its share of a category's evidence (training.feedback_bias).

    Args:
        rows: names of the map's rows, `general` last; `experts` those that the numbers mean.
        serving: (k,) number of the expert that serves each row; a bet on another pair says nothing of it.
        prices: (k, m) gain that pays for an expert in place of who serves.
    """
    row, rival = category_rows(log, rows), log.rival_in(experts)
    given, chance = log.expert_in(experts), np.minimum(log.rival_chance, log.planned_chance)
    is_bet = (log.planned_in(experts) == serving[row]) & (rival >= 0) & (rival != serving[row])
    is_bet &= (chance >= LEAST_CHANCE) & (log.at >= since) & ~is_outdated(log, changes)
    is_bet &= (given == rival) | (given == serving[row])
    bet, row, rival, given = log.rows(is_bet), row[is_bet], rival[is_bet], given[is_bet]
    weight = bet.weight * counted_share(row, bet.key, bet.weight, np.zeros(len(rows)), log.max_key_share)
    usual = means_before(bet.reward, row, PRIOR_REWARD)
    sign = np.where(given == rival, 1.0 / bet.rival_chance, -1.0 / bet.planned_chance)
    least = prices[row, rival]
    gain = np.where(weight > 0, weight * (bet.reward - usual) * sign - least, 0.0)
    most_lost = weight * np.maximum(usual, 1.0 - usual) / chance[is_bet] + np.abs(least)
    square = means_before(gain**2, np.zeros(len(bet), dtype=np.int64), PRIOR_SQUARE)
    planned = np.maximum(bet.lead - least, 0.0)[:, None] * SHARES_OF_LEAD
    stakes = np.minimum(planned / square[:, None], MOST_STAKE / np.maximum(most_lost, 1e-9)[:, None])
    return Bets(row, rival, gain, bet.key, np.log1p(stakes * gain[:, None]))


def means_before(values: Float64Array, group: IntArray, prior: float) -> Float64Array:
    """(n,) mean of the values of the same group that came before each, and of the prior."""
    found = np.empty(len(values))
    for name in np.unique(group):
        own = group == name
        before = np.concatenate([[0.0], np.cumsum(values[own])[:-1]])
        found[own] = (PRIOR_ANSWERS * prior + before) / (PRIOR_ANSWERS + np.arange(own.sum()))
    return found
