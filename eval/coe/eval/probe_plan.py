"""The plan of a new expert's probes, and the share of experts that look as good by luck alone. Pure.

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

PROBES_PER_ROUND = 4
"""Probes between two looks: fewer find slightly more, and each look starts `coe eval collect` once more (ours)."""

PRIOR_PROBES, OPTIMISM = 2.0, 0.1
"""Number of probes without gain that shrink a category's gain, and standard errors added to it (ours). This little
optimism goes deep into one category before it tries the next (`benchmarks/probes.py`)."""

SIMULATED = 2000

Ask = Callable[[Float64Array], tuple[Float64Array, Float64Array]]
"""The type that asks up to so many probes of each category in all; it returns sums and counts of scores, all (r, k)."""


@dataclass(frozen=True)
class Bars:
    """The score that the new expert must exceed in every category.

    `level` (k,) is the quality of the serving expert plus what the new one costs more, at the prices of the budgets.
    `stderr` (k,) is its standard error. `available` (k,) is the number of available probes, 0 for a pinned category.
    """

    level: Float64Array
    stderr: Float64Array
    available: Float64Array


def bars_of(config: CoeConfig, router: Router, evidence: QualityMatrix, expert: str, n_probes: Sequence[int]) -> Bars:
    """Return the quality that the new expert must exceed in every category under the default policy.

    Args:
        evidence: the router's experts, in their order, of shape (k+1, m).
        n_probes: number of probes for each row of the map, of shape (k+1,).
    """
    rows, policy = np.arange(len(evidence.quality)), router.policy("default")
    now = np.array([policy.expert_of(row)[0] for row in rows.tolist()])
    available = np.array([0 if row in policy.pins else n for row, n in enumerate(n_probes)], dtype=np.float64)
    level = evidence.quality[rows, now].astype(np.float64) + extra_cost(config, router, evidence, expert, now)
    return Bars(level, evidence.stderr[rows, now].astype(np.float64), available)


def extra_cost(config: CoeConfig, router: Router, evidence: QualityMatrix, expert: str, now: IntArray) -> Float64Array:
    """Return the expert's extra cost (k+1,) over the serving one, in quality, by the default policy's budget prices.

    Its answers are assumed as long and as slow as those of the others: none was seen yet.
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
    """Ask until the budget or the probes are used up; return the sums and counts of scores, (r, k) each."""
    first = np.cumsum(bars.available > 0) * (bars.available > 0)
    asked = np.tile(((first > 0) & (first <= budget)).astype(np.float64), (runs, 1))
    sums, counts = ask(asked)
    while (more := next_probes(bars, sums, counts, asked, budget)).any():
        asked = asked + more
        sums, counts = ask(asked)
    return sums, counts


def next_probes(bars: Bars, sums: Float64Array, counts: Float64Array, asked: Float64Array, budget: int) -> Float64Array:
    """Return the probes (r, k) to ask next: a round of the most promising category; zeros if all are used up."""
    left = bars.available - asked
    variance = np.clip(bars.level * (1 - bars.level), 0.01, None)
    promise = (sums - counts * bars.level) / (counts + PRIOR_PROBES) + OPTIMISM * np.sqrt(variance / (counts + 1))
    runs, best = np.arange(len(asked)), np.where(left > 0, promise, -np.inf).argmax(axis=1)
    more = np.zeros_like(asked)
    more[runs, best] = np.clip(np.minimum(left[runs, best], budget - asked.sum(axis=1)), 0, PROBES_PER_ROUND)
    return more


def evidence_of_gain(bars: Bars, sums: Float64Array, counts: Float64Array) -> Float64Array:
    """Return the log-likelihood ratio (r, k) of "as good as measured" to "as good as the bar": n KL(mean, bar), 0
    below."""
    n, level = np.maximum(counts, 1), np.clip(bars.level, 0.01, 0.99)
    mean = np.clip(sums / n, 1e-9, 1 - 1e-9)
    ratio = counts * (mean * np.log(mean / level) + (1 - mean) * np.log((1 - mean) / (1 - level)))
    return np.where(mean > bars.level, ratio, 0.0)


def chances_of_luck(bars: Bars, budget: int, sums: Float64Array, counts: Float64Array) -> Float64Array:
    """Return the share of experts without any advantage whose best category looks as good as this one, of shape (k,).

    Simulated experts are exactly as good as the serving one, whose own error is drawn anew for each. Their answers are
    right or wrong; scores in between vary less.

    Args:
        sums: scores of the real run, of shape (1, k); `counts` (1, k) is their number.
    """
    rng = np.random.default_rng(0)
    truth = np.clip(bars.level + rng.normal(size=(SIMULATED, len(bars.level))) * bars.stderr, 0.0, 1.0)
    lucky = evidence_of_gain(bars, *run_plan(bars, budget, simulate_experts(truth, rng), SIMULATED)).max(axis=1)
    found = evidence_of_gain(bars, sums, counts)[0]
    return np.asarray((1 + (lucky[:, None] >= found - 1e-9).sum(axis=0)) / (1 + SIMULATED))


def simulate_experts(truth: Float64Array, rng: np.random.Generator) -> Ask:
    """Return an `Ask` that simulates experts which answer right with these probabilities (r, k)."""
    sums, counts = np.zeros_like(truth), np.zeros_like(truth)

    def ask(asked: Float64Array) -> tuple[Float64Array, Float64Array]:
        sums[...] += rng.binomial((asked - counts).astype(np.int64), truth)
        counts[...] = asked
        return sums.copy(), counts.copy()

    return ask
