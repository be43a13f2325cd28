"""Choice of the probes to ask of a new expert next; the share of experts that look as good by luck alone. Pure.

Adaptive best-arm identification: one probe of every category, then four at a time of the category whose gain is most
promising. The error is that of the whole procedure: it is repeated with simulated experts that are nowhere better.
Shapes: r runs of the procedure (one that is real, or many that are simulated), k rows of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from coe.router.build import expert_costs
from coe.router.config.composition import CoeConfig
from coe.router.pipeline import Router
from coe.router.policy.map_solver import solve_map
from coe.router.quality import OF_EXPERTS, QualityMatrix, cautious_quality
from coe.router.types import Float64Array, IntArray

ROUND = 4
"""Probes between two looks. Fewer find slightly more, and each look starts `coe eval collect` once more (ours)."""

PRIOR_PROBES, OPTIMISM = 2.0, 0.1
"""A category's gain is shrunk by so many probes without any, and so many of its standard errors are added: this little
optimism goes deep into one category before it tries the next (ours; `benchmarks/probes.py`)."""

SIMULATED = 2000

Ask = Callable[[Float64Array], tuple[Float64Array, Float64Array]]
"""From how many probes of each category (r, k) to have asked in all, to the sums and counts (r, k) of their scores."""


@dataclass(frozen=True)
class Bars:
    """The score that the new expert has to exceed in every category.

    `level` (k,) is the quality of the expert that serves now, plus what the new one costs more at the prices of the
    budgets; `stderr` (k,) its standard error; `room` (k,) how many probes there are, 0 where none is to be asked.
    """

    level: Float64Array
    stderr: Float64Array
    room: Float64Array


def bars_of(config: CoeConfig, router: Router, evidence: QualityMatrix, expert: str, n_probes: Sequence[int]) -> Bars:
    """Quality that the new expert has to exceed in every category under the default policy.

    Args:
        evidence: (k+1, m) of the router's experts, in their order.
        n_probes: (k+1,) how many there are of each row of the map.
    """
    rows, policy = np.arange(len(evidence.quality)), router.policy("default")
    now = np.array([policy.expert_of(row)[0] for row in rows.tolist()])
    room = np.array([0 if row in policy.pins else n for row, n in enumerate(n_probes)], dtype=np.float64)
    level = evidence.quality[rows, now].astype(np.float64) + dearer(config, router, evidence, expert, now)
    return Bars(level, evidence.stderr[rows, now].astype(np.float64), room)


def dearer(config: CoeConfig, router: Router, evidence: QualityMatrix, expert: str, now: IntArray) -> Float64Array:
    """(k+1,) extra cost of the expert over the one that serves, in quality, by the default policy's prices of budgets.

    Its answers are taken to be as long and as slow as those of the others: none was seen yet.
    """
    joined = evidence.beside({name: getattr(evidence, name).mean(axis=1, keepdims=True) for name in OF_EXPERTS})
    costs = expert_costs([config.experts[name] for name in (*router.experts, expert)], joined)
    policy = router.policy("default")
    solved = solve_map(
        cautious_quality(joined, costs.cost_usd),
        joined.mass,
        costs,
        config.policies["default"].budgets,
        dict(policy.pins),
    )
    if solved.fallbacks is None:
        return np.zeros(len(now))
    tolls = solved.fallbacks.tolls
    return np.asarray(tolls[:, -1] - tolls[np.arange(len(now)), now])


def run_plan(bars: Bars, budget: int, ask: Ask, runs: int = 1) -> tuple[Float64Array, Float64Array]:
    """Asks until the budget or the probes are used up. Returns the sums and counts (r, k) of the scores."""
    first = np.cumsum(bars.room > 0) * (bars.room > 0)
    asked = np.tile(((first > 0) & (first <= budget)).astype(np.float64), (runs, 1))
    sums, counts = ask(asked)
    while (more := next_probes(bars, sums, counts, asked, budget)).any():
        asked = asked + more
        sums, counts = ask(asked)
    return sums, counts


def next_probes(bars: Bars, sums: Float64Array, counts: Float64Array, asked: Float64Array, budget: int) -> Float64Array:
    """(r, k) probes to ask in addition: a round of the most promising category; none when all is used up."""
    left = bars.room - asked
    variance = np.clip(bars.level * (1 - bars.level), 0.01, None)
    promise = (sums - counts * bars.level) / (counts + PRIOR_PROBES) + OPTIMISM * np.sqrt(variance / (counts + 1))
    runs, best = np.arange(len(asked)), np.where(left > 0, promise, -np.inf).argmax(axis=1)
    more = np.zeros_like(asked)
    more[runs, best] = np.clip(np.minimum(left[runs, best], budget - asked.sum(axis=1)), 0, ROUND)
    return more


def evidence_of_gain(bars: Bars, sums: Float64Array, counts: Float64Array) -> Float64Array:
    """(r, k) log-likelihood ratio of "as good as measured" to "as good as the bar": n KL(mean, bar), 0 below it."""
    n, level = np.maximum(counts, 1), np.clip(bars.level, 0.01, 0.99)
    mean = np.clip(sums / n, 1e-9, 1 - 1e-9)
    ratio = counts * (mean * np.log(mean / level) + (1 - mean) * np.log((1 - mean) / (1 - level)))
    return np.where(mean > bars.level, ratio, 0.0)


def chances_of_luck(bars: Bars, budget: int, sums: Float64Array, counts: Float64Array) -> Float64Array:
    """(k,) share of experts that are nowhere better of which some category looks as good as this one, or better.

    They are exactly as good as the expert that serves now, whose own error is drawn anew for each. Their answers are
    right or wrong; scores in between vary less.

    Args:
        sums: (1, k) scores of the real run, `counts` (1, k) their number.
    """
    rng = np.random.default_rng(0)
    truth = np.clip(bars.level + rng.normal(size=(SIMULATED, len(bars.level))) * bars.stderr, 0.0, 1.0)
    lucky = evidence_of_gain(bars, *run_plan(bars, budget, simulated(truth, rng), SIMULATED)).max(axis=1)
    found = evidence_of_gain(bars, sums, counts)[0]
    return np.asarray((1 + (lucky[:, None] >= found - 1e-9).sum(axis=0)) / (1 + SIMULATED))


def simulated(truth: Float64Array, rng: np.random.Generator) -> Ask:
    """Experts (r, k) that answer right with these probabilities."""
    sums, counts = np.zeros_like(truth), np.zeros_like(truth)

    def ask(asked: Float64Array) -> tuple[Float64Array, Float64Array]:
        sums[...] += rng.binomial((asked - counts).astype(np.int64), truth)
        counts[...] = asked
        return sums.copy(), counts.copy()

    return ask
