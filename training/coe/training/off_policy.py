"""Off-policy estimates of what a candidate router would have earned on the log of another, and the evidence that it
gains: the capital of a betting confidence sequence, that is of somebody who bets on the gain, answer by answer. Pure.

Nobody can win on average by bets on gains whose mean is not above `least`, whatever the stakes, if each stake follows
from earlier answers and no bet can cost more than is there. So the capital, from 1 on, is a non-negative
supermartingale and reaches 1 / LEVEL with a chance of at most LEVEL, however often it is looked at (Ville 1939;
Waudby-Smith & Ramdas, JRSS-B 2024). Stakes decide only the power. A constant stake multiplies the capital by at most
exp(z^2 / 2) for a gain of z standard errors, which is 20 from z = 2.45 on. A test that looks once, at the end of a
plan of N answers, asks for 1.64: its capital on the way (Koning & van Meer, "Anytime validity is free", 2025) is the
price of a digital option, which pays PRIZE where the sum of gains ends above a strike,

    W_t = PRIZE Phi(d_t),    d_t = (S_t - strike) / (s sqrt(N - t)),

and who holds W_t replicates it by the stake phi(d_t) / (Phi(d_t) s sqrt(N - t)) of the capital on each answer. PRIZE
lies above 1 / LEVEL, so the option is sold before the end of the plan where its payment has become likely enough. With
a prize of twice what is asked it is a one-touch option: a sum that touches the strike ends above it with a chance of a
half, and sums touch it twice as often as they end above it.

Shapes: n logged answers, m experts, c = 1 + number of limited voices. `match` (n,) is the
candidate's probability of the logged expert, `propensity` (n,) the logged router's, `reward` (n,) in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import norm
from scipy.stats import t as student_t

from coe.router.types import Float64Array, IntArray, Interval, Metric
from coe.training.gate import LEVEL, MOST_LUCKY, WITHOUT_ONE

ROUNDS = 1000
MAX_WEIGHT = 200.0
"""Importance weights are clipped here: a little bias for bounded variance (Bottou et al. 2013). High, because a tenth
of the traffic explored over six experts gives each a sixtieth and a poor one less; at 50 the mean of the plain IPS was
off by 0.06 in the simulation, at 200 by 0.03, and the doubly robust interval was as wide (ours)."""


def importance_weights(match: Float64Array, propensity: Float64Array) -> Float64Array:
    """w_i = pi(a_i | x_i) / mu(a_i | x_i), clipped."""
    return np.minimum(match / propensity, MAX_WEIGHT)


def effective_sample_size(weights: Float64Array) -> float:
    """(sum w)^2 / sum w^2 (Kish 1965); 0 when no logged action agrees with the candidate."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def doubly_robust_terms(
    weights: Float64Array, reward: Float64Array, model_of_logged: Float64Array, model_of_candidate: Float64Array
) -> Float64Array:
    """Per-row doubly robust values (n,): q(x, pi) + w (r - q(x, a)); their mean is the estimate (Dudik et al. 2011).

    Args:
        model_of_logged: q(x_i, a_i), predicted reward of the logged expert.
        model_of_candidate: sum_e pi(e | x_i) q(x_i, e), predicted reward of the candidate's choice.
    """
    return model_of_candidate + weights * (reward - model_of_logged)


def bootstrap_sums(
    columns: Float64Array,
    groups: IntArray,
    statistic: Callable[[Float64Array], Float64Array],
    rng: np.random.Generator,
) -> list[Metric]:
    """Statistics of column sums with their 95% percentile intervals, by resampling whole groups of rows.

    Answers to one question resemble each other, so a question that was asked ten times is one draw of ten rows, not ten
    draws (cluster bootstrap, Field & Welsh 2007). All statistics see the same draws, so an interval of a difference is
    that of the difference.

    Args:
        columns: (n, b); `groups` (n,) any numbers, equal for rows that belong together.
        statistic: sums (..., b) to values (..., s).
    """
    _, member = np.unique(groups, return_inverse=True)
    n_groups = int(member.max(initial=-1)) + 1
    sums = np.stack([np.bincount(member, weights=column, minlength=n_groups) for column in columns.T], axis=1)
    values = statistic(sums.sum(axis=0))
    drawn = [np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups) @ sums for _ in range(ROUNDS)]
    draws = statistic(np.stack(drawn))
    return [with_interval(float(value), draws[:, i], len(columns)) for i, value in enumerate(values)]


def paired_means(
    live: Float64Array, candidate: Float64Array, weight: Float64Array, groups: IntArray, rng: np.random.Generator
) -> tuple[Metric, Metric, Metric]:
    """Weighted means of two value arrays (n,) on the same rows, and of their difference; `groups` are resampled."""

    def means(sums: Float64Array) -> Float64Array:
        both = sums[..., 1:] / np.maximum(sums[..., :1], 1e-12)
        return np.concatenate([both, both[..., 1:] - both[..., :1]], axis=-1)

    columns = np.stack([weight, weight * live, weight * candidate], axis=1)
    of_live, of_candidate, of_difference = bootstrap_sums(columns, groups, means, rng)
    return of_live, of_candidate, of_difference


def weighted_mean(sums: Float64Array) -> Float64Array:
    """(..., 1) from sums (..., 2) of weighted values and of weights; NaN where there is no weight."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., :1] / sums[..., 1:], dtype=np.float64)


def widened(metric: Metric, effective_n: float, below: float, above: float) -> Metric:
    """The interval widened about its value by what Student's t exceeds the normal at so many effective rows, then by as
    much on either side as the value may be off for what no answer can tell.

    A percentile interval of n rows is too short for a mean, by that factor and by sqrt(1 - 1/n) (Hesterberg 2015).
    """
    if metric.interval is None:
        return metric
    n = max(effective_n, 3.0)
    factor = float(student_t.ppf(0.975, n - 1.0) / norm.ppf(0.975)) * (n / (n - 1.0)) ** 0.5
    low, high = (metric.value + factor * (edge - metric.value) for edge in (metric.interval.low, metric.interval.high))
    return metric.model_copy(update={"interval": Interval(low=low - below, high=high + above)})


def with_interval(value: float, draws: Float64Array, n: int) -> Metric:
    """A value with the 2.5 and 97.5 percentiles of what of its bootstrap draws is finite."""
    draws = draws[np.isfinite(draws)]
    if len(draws) == 0:
        return Metric(value=value, n=n)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Metric.within(float(low), value, float(high), n)


PLANNED_GAIN = 0.02
"""Gain that the plan is made for: it ends where so much is 1.64 standard errors (ours)."""

FULL_CHANCE = 0.2
"""Chance of an expert from which on its answers count in full, and below in proportion. To cut importance weights would
bound the noise as well, but the model would judge what is cut off, and it made the candidate prefer its expert (ours;
benchmarks/LOG.md)."""

HEDGED = 0.6
"""Share of the first capital that replicates the option. The rest has stakes that never change: a small one, because an
option that ended far below its strike recovers late, and a large one, because a great gain need not wait for a plan
(ours; benchmarks/LOG.md)."""

STEADY_STAKES = (0.2, 0.8)
MAX_STAKE = 0.8
"""Stakes as shares of the largest that leaves the capital positive (ours)."""

STILL_TO_COME = 0.25
"""Answers that are always planned for at least, as a share of those seen: a plan that ends is extended."""

PRIOR_ANSWERS, PRIOR_VARIANCE = 20.0, 0.36
"""Prior of the variance of a gain, and the answers that it counts as (ours)."""

BLOCK = 20
"""Answers with the same stake."""


@dataclass(frozen=True)
class Betting:
    """Terms by which evidence is sought: 1 / `level` is enough. `prize` is what the option pays for a capital of 1.
    Its plan ends after so many `answers`; None: when PLANNED_GAIN would show."""

    level: float
    prize: float
    answers: float | None = None

    def left(self, variance: Float64Array, n: Float64Array) -> Float64Array:
        """(c,) answers to come of the plan, after n (c,) with gains of this variance (c,)."""
        planned = (ndtri(1.0 - LEVEL) / PLANNED_GAIN) ** 2 * variance if self.answers is None else self.answers
        return np.maximum(planned - n, STILL_TO_COME * (n + 50.0))


OF_CANDIDATES = Betting(LEVEL, prize=120.0)
"""Prize: ours; benchmarks/LOG.md."""

OF_NEW_EXPERTS = Betting(MOST_LUCKY, prize=2.0 / MOST_LUCKY / HEDGED, answers=1200.0)
"""A trial that may be wrong as often as probes may, planned for what people rate in some 4,000 decisions (ours)."""


def log_e_gain(
    gains: NDArray[np.floating],
    voices: NDArray[np.integer],
    least: float,
    most_lost: float,
    betting: Betting = OF_CANDIDATES,
) -> float:
    """log E against "the mean gain is at most `least`", of which little may depend on any one voice.

    Every voice is left out in turn, with stakes that follow from the others' answers, and the least capital counts.
    WITHOUT_ONE of 1 / level without a voice is worth as much as all of it with all, and there betting ends. Without a
    gain this is reached with a chance of at most the level, and of level / WITHOUT_ONE where one voice lies as well as
    it can.

    Args:
        gains: (n,) per answer in order of time, each with a mean that is the true gain; 0 where both routers agree.
        voices: (n,) number of the key that rated each answer, negative where it may not be left out.
        most_lost: no gain lies below its negative.
    """
    names, member = np.unique(voices, return_inverse=True)
    left_out = np.array([-1, *(np.flatnonzero(names >= 0) if len(names) > 1 else ())])
    enough = np.where(left_out < 0, 1.0, WITHOUT_ONE) / betting.level
    hedged, stakes = np.full(len(left_out), HEDGED), np.array(STEADY_STAKES)[:, None, None]
    steady = np.full((len(stakes), len(left_out)), (1.0 - HEDGED) / len(stakes))
    seen = np.full(len(left_out), PRIOR_ANSWERS)
    squares = seen * PRIOR_VARIANCE
    largest = 1.0 / (most_lost + abs(least))
    for start in range(0, len(gains), BLOCK):
        part = slice(start, start + BLOCK)
        heard = (member[part, None] != left_out) & (hedged + steady.sum(axis=0) < enough)
        surplus = (gains[part] - least)[:, None] * heard
        variance = squares / seen
        stake = hedging_stake(hedged / HEDGED / betting.prize, variance, betting.left(variance, seen - PRIOR_ANSWERS))
        hedged *= np.prod(1.0 + np.minimum(stake, MAX_STAKE * largest) * surplus, axis=0)
        steady *= np.prod(1.0 + stakes * largest * surplus, axis=1)
        seen += heard.sum(axis=0)
        squares += (surplus**2).sum(axis=0)
    return math.log(float(((hedged + steady.sum(axis=0)) / enough).min()) / betting.level)


def hedging_stake(price: Float64Array, variance: Float64Array, left: Float64Array) -> Float64Array:
    """(c,) stakes, per unit of gain and of capital, that replicate an option of this price (c,) per unit of its prize.

    Args:
        variance: (c,) of a gain.
        left: (c,) answers until it pays.
    """
    price = np.clip(price, 1e-12, 1.0 - 1e-9)
    density = np.exp(-(ndtri(price) ** 2) / 2.0) / math.sqrt(2.0 * math.pi)
    return np.asarray(density / (price * np.sqrt(variance * left)), dtype=np.float64)
