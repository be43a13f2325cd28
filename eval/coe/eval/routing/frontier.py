"""Quality against a budget: what the router gains with more of it, beside a fixed mixture of experts.

Shapes: n test queries, m experts, g limits (rising). Nothing is chosen on test scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from coe.eval.metrics.intervals import Estimate
from coe.eval.metrics.paired import Paired
from coe.eval.routing.baselines import best_mixture, best_single, one_hot
from coe.eval.routing.routing_records import FrontierPoint
from coe.eval.routing.trial import Trial, mean_costs
from coe.router.config.policy import BEST, QUALITY_FLOOR, Budgets, PolicyConfig, QualityFloor
from coe.router.types import Float64Array, IntArray

BudgetName = Literal["active_params_b", "cost_usd", "hosted_params_b"]
GRID = 10
WITHIN = QualityFloor(within=0.01, of=BEST)
"""Quality floor that reports show: one point below the best single expert (ours)."""

PRICES: Sequence[BudgetName] = ("cost_usd", "active_params_b")
"""Amounts that a cheapest plan minimises; the first known one counts."""


@dataclass(frozen=True)
class Budget:
    """A kind of budget: `limits` (g,) rising, `amounts` (m,) known when deciding, and `test_amounts` (m,) or (n, m)
    used on the test queries."""

    name: BudgetName
    limits: Float64Array
    amounts: Float64Array
    test_amounts: Float64Array

    def used(self, probs: Float64Array) -> float:
        """Return the mean amount of a choice (n, m); for hosted parameters, the sum over all of its experts."""
        if self.name == "hosted_params_b":
            return float(self.amounts[probs.any(axis=0)].sum())
        return float((probs * self.test_amounts).sum(axis=1).mean())


def budget_grid(name: BudgetName, amounts: Float64Array, extra: Sequence[float] = ()) -> Float64Array:
    """Return limits from the least that one expert needs to the most that can be used. They rise in equal ratios (in
    equal steps if an expert is free). Values of `extra` that are at least the least join them."""
    low, high = float(amounts.min()), float(amounts.sum() if name == "hosted_params_b" else amounts.max())
    grid = np.geomspace(low, high, GRID) if low > 0 else np.linspace(low, high, GRID)
    grid[0], grid[-1] = low, high
    kept = [value for value in extra if value >= low]
    return np.unique(np.concatenate([grid, kept]))


def known_budgets(trial: Trial) -> list[Budget]:
    """Return the budgets whose amounts are known for every expert and differ. Each has its own grid, the amount of
    each expert alone, and the limit that the trial sets."""
    sizes = trial.sizes_b
    kinds: list[tuple[BudgetName, Float64Array, Float64Array]] = [
        ("active_params_b", sizes, sizes),
        ("cost_usd", mean_costs(trial.fit), trial.cost_usd),
        ("hosted_params_b", sizes, sizes),
    ]
    limits = {name: [value] for name, value in trial.budgets.model_dump(exclude_none=True).items()}
    return [
        Budget(name, budget_grid(name, amounts, [*amounts, *limits.get(name, ())]), amounts, used)
        for name, amounts, used in kinds
        if np.isfinite(amounts).all() and np.isfinite(used).all() and len(np.unique(amounts)) > 1
    ]


def limited_policies(budgets: Sequence[Budget], *, with_floor: bool) -> dict[str, PolicyConfig]:
    """Return a policy for every limit, by `policy_name`, and the cheapest one of the floor."""
    limited = {
        policy_name(budget, limit): PolicyConfig(budgets=Budgets(**{budget.name: float(limit)}))
        for budget in budgets
        for limit in budget.limits
    }
    is_priced = with_floor and any(budget.name in PRICES for budget in budgets)
    return limited | ({QUALITY_FLOOR: PolicyConfig(quality_floor=WITHIN)} if is_priced else {})


def policy_name(budget: Budget, limit: float) -> str:
    """Return the name of the policy for a limit of a budget."""
    return f"{budget.name} {limit}"


def mixture(trial: Trial, budget: Budget, limit: float) -> Float64Array:
    """Return the best random choice (n, m) under a limit: a mixture of two experts; of hosted ones the best single."""
    if budget.name == "hosted_params_b":
        fits = budget.amounts <= limit
        return one_hot(np.full(len(trial.scores), best_single(trial.fit.scores, fits)), len(fits))
    mixed = best_mixture(trial.fit_means, budget.amounts, limit)
    assert mixed is not None, "every limit of the grid admits an expert"
    return np.broadcast_to(mixed, trial.scores.shape)


def build_frontier(trial: Trial, rng: np.random.Generator) -> dict[str, dict[str, tuple[FrontierPoint, ...]]]:
    """Measure the router and the fixed mixture under each budget."""
    budgets = {budget.name: budget for budget in known_budgets(trial) if budget.name in trial.limited}
    found: dict[str, dict[str, tuple[FrontierPoint, ...]]] = {
        name: measure_curves(trial, budget, trial.limited[name], rng) for name, budget in budgets.items()
    }
    price = next((name for name in PRICES if name in budgets), None)
    if price is not None and QUALITY_FLOOR in trial.limited:
        found[price][QUALITY_FLOOR] = (floor_point(trial, budgets[price], rng),)
    return found


def floor_point(trial: Trial, budget: Budget, rng: np.random.Generator) -> FrontierPoint:
    """Measure the cheapest plan of the floor, and what it uses of a budget."""
    probs = one_hot(trial.limited[QUALITY_FLOOR][0], len(budget.amounts))
    score = Paired.of({QUALITY_FLOOR: (probs * trial.scores).sum(axis=1)}, rng).mean(QUALITY_FLOOR)
    used = budget.used(probs)
    return FrontierPoint(budget=WITHIN.within, amount=used, mean_score=score.mean, interval=score.interval, gain=None)


def measure_curves(
    trial: Trial, budget: Budget, decided: Sequence[IntArray], rng: np.random.Generator
) -> dict[str, tuple[FrontierPoint, ...]]:
    """Measure the test quality at every limit. The router's has its paired difference to a fixed mixture. That mixture
    may spend the limit, or the router's use on the test queries if that is more.

    Args:
        decided: the router's experts at each limit, of shape (n,) each.
    """
    limits = budget.limits.tolist()
    coe = [one_hot(experts, len(budget.amounts)) for experts in decided]
    mixed = [mixture(trial, budget, limit) for limit in limits]
    fair = [mixture(trial, budget, max(limit, budget.used(own))) for limit, own in zip(limits, coe, strict=True)]
    curves = {"coe": coe, "best_mixture": mixed, "fair_mixture": fair}
    columns = {
        f"{name} {i}": (probs * trial.scores).sum(axis=1)
        for name, curve in curves.items()
        for i, probs in enumerate(curve)
    }
    scores = Paired.of(columns, rng)

    def point(name: str, i: int, gain: Estimate | None = None) -> FrontierPoint:
        score = scores.mean(f"{name} {i}")
        used = budget.used(curves[name][i])
        return FrontierPoint(budget=limits[i], amount=used, mean_score=score.mean, interval=score.interval, gain=gain)

    places = range(len(limits))
    return {
        "coe": tuple(point("coe", i, scores.minus(f"coe {i}", f"fair_mixture {i}")) for i in places),
        "best_mixture": tuple(point("best_mixture", i) for i in places),
    }
