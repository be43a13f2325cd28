"""The rule by which a category moves to its challenger: bets on answers from after the challenger was named. Pure.

A challenger answers a known share of its category's queries (router.exploration); the serving expert answers most of
the rest. An answer has the reward r, the reply weight w and the logged probabilities p_c and p_s of both experts. The
baseline b is the mean reward before it. The *gain* of the answer is

    w (r - b) / p_c  if the challenger gave it,    -w (r - b) / p_s  if the serving expert gave it.

Its expectation is the challenger's true advantage; no model needs to be right for that. `required_gain` is the gain
that pays for the challenger's price. If no challenger is better, a gambler who stakes a share of the capital on each
gain beyond that cannot win on average. Each bet follows from what was logged before it, however challengers are named,
refitted or renamed. So one capital over all categories, starting at 1, reaches PROMOTION_EVIDENCE with a probability of
at most 1 / PROMOTION_EVIDENCE. It may be inspected at any time (Ville 1939; Waudby-Smith & Ramdas, JRSS-B 2024). Stakes
only decide how fast it grows. The best stake for a gain is gain / variance (Kelly 1956), and a quarter of the capital
is staked for each of PLANNED_GAIN_SHARES.

Late ratings and erasures are included, because each round recomputes the capital from the log. Shapes: n bets, k rows
of the map, m experts.
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

PLANNED_GAIN_SHARES = np.array([0.25, 0.5, 1.0, 2.0])
"""Gains that stakes are planned for, as shares of the gain that the router estimated when it decided. A challenger
may be half as good as it looks, or twice (ours; benchmarks/LOG.md)."""

PROMOTION_EVIDENCE = 20.0
"""Capital at which categories move. Without a better challenger it is ever reached with a probability of at most 5%."""

EVIDENCE_WITHOUT_ANY_KEY = 15.0
"""Capital required without the answers of any one key (ours). The luckiest of forty honest keys takes a third of a
standard error with it."""

CHALLENGER_EVIDENCE = 2.0
"""Capital of the bets on one challenger above which it takes its category, once PROMOTION_EVIDENCE is reached
(ours)."""

MIN_CHANCE = 0.1
"""Probability of either expert below which no bet is placed: one answer would decide (ours)."""

MAX_STAKE = 0.5
"""Largest share of the capital that a bet can lose (ours)."""

PRIOR_ANSWERS, PRIOR_REWARD, PRIOR_SECOND_MOMENT = 20.0, 0.5, 1.0
"""Prior weight in answers, prior reward, and prior square of a gain, before the first bet (ours)."""


@dataclass(frozen=True)
class Bets:
    """Bets in order of time, as arrays (n,): `row` of the map, `challenger`, and `gain` beyond its price. `key` (n,)
    rated the answer; it is negative if it may not be left out. `growth` (n, 4) is the log growth of each planned
    gain's capital."""

    row: IntArray
    challenger: IntArray
    gain: Float64Array
    key: IntArray
    growth: Float64Array

    def __len__(self) -> int:
        return len(self.row)

    @property
    def capital(self) -> float:
        """The capital of all bets together, starting at 1."""
        return capital_of(self.growth.sum(axis=0))

    @property
    def without_any_key(self) -> float:
        """The smallest capital that is left without the answers of any one key."""
        total, keys = self.growth.sum(axis=0), np.unique(self.key[self.key >= 0])
        return min((capital_of(total - self.growth[self.key == key].sum(axis=0)) for key in keys), default=self.capital)

    @property
    def is_enough(self) -> bool:
        """True if the capital suffices to move categories, with and without any one key."""
        return self.capital >= PROMOTION_EVIDENCE and self.without_any_key >= EVIDENCE_WITHOUT_ANY_KEY

    @property
    def capital_by_challenger(self) -> dict[tuple[int, int], float]:
        """The capital of the bets on each challenger alone, by (row, number of the expert)."""
        pairs = {(int(row), int(expert)) for row, expert in zip(self.row, self.challenger, strict=True)}
        return {pair: capital_of(self.growth[self.on(*pair)].sum(axis=0)) for pair in sorted(pairs)}

    def on(self, row: int, challenger: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Select the bets on one challenger, as a mask of shape (n,)."""
        return np.asarray((self.row == row) & (self.challenger == challenger))

    def moves(self) -> dict[int, int]:
        """Return row -> the challenger that takes it over; none unless the capital is enough."""
        own = self.capital_by_challenger
        best = max(own.values(), default=0.0)
        found: dict[int, int] = {}
        for (row, expert), capital in sorted(own.items(), key=lambda each: each[1]) if self.is_enough else ():
            if capital >= min(CHALLENGER_EVIDENCE, best):
                found[row] = expert
        return found


def capital_of(growth: Float64Array) -> float:
    """Return the mean of the capitals of the planned gains, whose logarithms are given (4,)."""
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
    """Place bets on the answers of a log since a time in Unix seconds.

    Answers from before a quality change of any expert in their category are left out: they do not show which expert is
    better today. No key exceeds its share of a category's evidence (training.feedback_bias).

    Args:
        rows: names of the map's rows, `general` last; `experts` are the names that the numbers refer to.
        serving: number of the expert that serves each row, of shape (k,). Bets on other pairs do not bear on it.
        prices: gain that pays for an expert in place of the serving one, of shape (k, m).
    """
    row, challenger = category_rows(log, rows), log.challenger_in(experts)
    answered_by, chance = log.expert_in(experts), np.minimum(log.challenger_chance, log.planned_chance)
    is_bet = (log.planned_in(experts) == serving[row]) & (challenger >= 0) & (challenger != serving[row])
    is_bet &= (chance >= MIN_CHANCE) & (log.at >= since) & ~is_outdated(log, changes)
    is_bet &= (answered_by == challenger) | (answered_by == serving[row])
    bet, row, challenger, answered_by = log.rows(is_bet), row[is_bet], challenger[is_bet], answered_by[is_bet]
    weight = bet.weight * counted_share(row, bet.key, bet.weight, np.zeros(len(rows)), log.max_key_share)
    baseline = means_before(bet.reward, row, PRIOR_REWARD)
    sign = np.where(answered_by == challenger, 1.0 / bet.challenger_chance, -1.0 / bet.planned_chance)
    required_gain = prices[row, challenger]
    gain = np.where(weight > 0, weight * (bet.reward - baseline) * sign - required_gain, 0.0)
    worst_loss = weight * np.maximum(baseline, 1.0 - baseline) / chance[is_bet] + np.abs(required_gain)
    second_moment = means_before(gain**2, np.zeros(len(bet), dtype=np.int64), PRIOR_SECOND_MOMENT)
    planned = np.maximum(bet.estimated_gain - required_gain, 0.0)[:, None] * PLANNED_GAIN_SHARES
    stakes = np.minimum(planned / second_moment[:, None], MAX_STAKE / np.maximum(worst_loss, 1e-9)[:, None])
    return Bets(row, challenger, gain, bet.key, np.log1p(stakes * gain[:, None]))


def means_before(values: Float64Array, group: IntArray, prior: float) -> Float64Array:
    """Return the mean of the prior and the earlier values of the same group, for each value, of shape (n,)."""
    found = np.empty(len(values))
    for name in np.unique(group):
        own = group == name
        before = np.concatenate([[0.0], np.cumsum(values[own])[:-1]])
        found[own] = (PRIOR_ANSWERS * prior + before) / (PRIOR_ANSWERS + np.arange(own.sum()))
    return found
