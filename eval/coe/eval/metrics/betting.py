"""Exact evidence that a mean gain lies above a bound: the capital of a betting confidence sequence, valid after every
batch. Pure.

If the mean gain is not above the bound, a gambler wins nothing on average, whatever the stakes. Each stake must depend
on earlier gains only, and no bet may cost more than the capital. So the capital, starting at 1, reaches 1 / LEVEL with
a probability of at most LEVEL. It may be inspected at any time (Ville 1939; Waudby-Smith & Ramdas, JRSS-B 2024). A part
of it replicates a digital option on the sum of gains at the end of a plan. That needs fewer gains than constant stakes
(Koning & van Meer, "Anytime validity is free", 2025). The rest has constant stakes, in case the plan is wrong.

Once the capital is enough the option is sold, because it would hold for ever, and its value moves to the constant
stakes. The capital is never more than MAX_OVERSHOOT times the required one. So a plan that became worse, because an
expert changed, loses its evidence within some hundred gains.

Shapes: n gains in order of time, c plans that are tested side by side, b blocks.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from coe.router.types import Float64Array

LEVEL = 0.05
REQUIRED_CAPITAL = 1.0 / LEVEL
MAX_OVERSHOOT = math.e
HEDGED_SHARE = 0.6
CONSTANT_STAKES = (0.1, 0.3, 0.6)
MAX_STAKE = 0.7
"""Largest constant stake. HEDGED_SHARE is the share of the first capital that replicates the option; CONSTANT_STAKES
are the constant stakes. All stakes are shares of the largest that leaves the capital positive (ours)."""

PRIZE = 2.0 * REQUIRED_CAPITAL / HEDGED_SHARE
"""Payout of the option per unit of capital: twice the required capital, so a sum just at the strike is enough."""

PLANNED_GAINS, LATER_SHARE = 400.0, 0.25
"""Number of gains in a plan, and the number still to come at any time, as a share of those seen (ours)."""

PRIOR_GAINS, PRIOR_VARIANCE = 20.0, 0.03
"""Prior weight, in gains, and value of a gain's variance: a plan that changes one answer in ten (ours)."""

BLOCK = 20
"""Number of gains with the same stake; the capital is inspected after each block."""


def capital(gains: Float64Array, bound: float, worst_loss: Float64Array) -> Float64Array:
    """Return the capital (b, c) against "the mean gain is at most `bound`", after each block.

    Args:
        gains: gains of each plan in order of time (n, c); `worst_loss` (n,) bounds each loss, and is known before it.
    """
    hedged = np.full(gains.shape[1], HEDGED_SHARE)
    steady = np.full((len(CONSTANT_STAKES), gains.shape[1]), (1.0 - HEDGED_SHARE) / len(CONSTANT_STAKES))
    stakes = np.array(CONSTANT_STAKES)[:, None, None]
    squares, seen, found = np.full(gains.shape[1], PRIOR_GAINS * PRIOR_VARIANCE), PRIOR_GAINS, []
    for start in range(0, len(gains), BLOCK):
        part = slice(start, start + BLOCK)
        surplus, largest = gains[part] - bound, 1.0 / (float(worst_loss[part].max()) + bound)
        left = max(PLANNED_GAINS - start, LATER_SHARE * (start + 50.0))
        stake = np.minimum(hedging_stake(hedged / HEDGED_SHARE / PRIZE, squares / seen, left), MAX_STAKE * largest)
        hedged = hedged * np.prod(1.0 + stake * surplus, axis=0)
        steady = steady * np.prod(1.0 + stakes * largest * surplus, axis=1)
        whole = hedged + steady.sum(axis=0)
        kept = np.minimum(MAX_OVERSHOOT * REQUIRED_CAPITAL / whole, 1.0)
        sold = np.where(whole * kept >= REQUIRED_CAPITAL, hedged * kept, 0.0)
        hedged, steady = hedged * kept - sold, steady * kept + sold / len(CONSTANT_STAKES)
        squares, seen = squares + (surplus**2).sum(axis=0), seen + len(surplus)
        found.append(whole * kept)
    return np.array(found).reshape(len(found), gains.shape[1])


def hedging_stake(price: Float64Array, variance: Float64Array, left: float) -> Float64Array:
    """Return stakes, per unit of gain and of capital, that replicate an option on `left` gains of this variance, of
    shape (c,). The stake is phi(d) / (Phi(d) s sqrt(left)) with Phi(d) = the option's price per unit of its prize."""
    price = np.clip(price, 1e-12, 1.0 - 1e-9)
    density = np.exp(-(ndtri(price) ** 2) / 2.0) / math.sqrt(2.0 * math.pi)
    return np.asarray(density / (price * np.sqrt(variance * left)), dtype=np.float64)


FUTURES, MAX_FUTURE_GAINS = 64, 4000
"""Number of simulated continuations, and the largest number of gains in each (ours)."""


def still_needed(gains: Float64Array, bound: float, worst_loss: Float64Array, rng: np.random.Generator) -> int | None:
    """Return the median number of further gains after which the capital is enough, if they are like these (n,); None
    if MAX_FUTURE_GAINS are too few."""
    if len(gains) < BLOCK or gains.mean() <= bound:
        return None
    futures, limits = rng.choice(gains, size=(MAX_FUTURE_GAINS, FUTURES)), np.full(MAX_FUTURE_GAINS, worst_loss.max())
    both = np.concatenate([np.repeat(gains[:, None], FUTURES, axis=1), futures])
    enough = capital(both, bound, np.concatenate([worst_loss, limits]))[len(gains) // BLOCK :] >= REQUIRED_CAPITAL
    first = np.where(enough.any(axis=0), enough.argmax(axis=0) * BLOCK, MAX_FUTURE_GAINS)
    median = int(np.median(first))
    return None if median >= MAX_FUTURE_GAINS else max(median, BLOCK)
