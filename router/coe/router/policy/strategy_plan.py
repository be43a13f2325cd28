"""Choice of the way to ask that serves each category, under the budgets of a policy. Pure. Shapes: k rows (categories,
`general` among them), m experts, v ways, c = m + v choices: an expert, or a way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from coe.router.config.policy import QUALITY_FLOOR, Floor
from coe.router.policy.budget_price import SLACK, relative_price
from coe.router.policy.map_solver import TIE_BREAK, ExpertCosts, MapProgram
from coe.router.quality import QualityMatrix, cautious_quality
from coe.router.strategies.learned import NEVER, Ways
from coe.router.types import BoolArray, Float64Array, IntArray

CALL_PRICE = 0.0002
"""Quality that one more call must gain: two right answers in ten thousand, so that none is made that changes nothing.
Budgets bound the rest (ours: of 0.0002 to 0.002 the best on training prompts)."""

RESERVE_ERRORS = 3.3
"""Standard errors of its mean use by which a plan stays below a limit.

At 3.3, the mean of as many other prompts is within the limit 99 times in 100. That is 2.33 of a normal distribution
times the root of 2, because their mean errs, too.
"""

NO_SAVING = -1e3
"""Worth of what may not be chosen, in prices of the dearest choice."""

RESERVE_STEPS = 16
"""Number of ever lower limits that are tried until a plan keeps the reserve of its own use. A plan that differs little
from query to query needs no reserve."""


@dataclass(frozen=True)
class StrategyPlan:
    """`choice_of` (k,): who serves each category: expert e of m alone, or way `e - m`. `used` are means per query,
    `calls` and `quality` among them; `binding` names the limits without which the plan would be better."""

    choice_of: IntArray
    used: Mapping[str, float]
    binding: tuple[str, ...]


@dataclass(frozen=True)
class Choices:
    """Inputs of a plan.

    `quality` is (k, c), `spent` (k, c) of each limited amount and `calls`, `mass` (k,). `spread` (k, c) is the standard
    deviation of each amount among queries of a category, and `n_queries` were measured. With a `floor` the cheapest
    choice of that mean quality is the best.
    """

    quality: Float64Array
    spent: Mapping[str, Float64Array]
    spread: Mapping[str, Float64Array]
    mass: Float64Array
    n_queries: float
    floor: Floor | None = None

    @cached_property
    def worth(self) -> Float64Array:
        """Return quality less the price of calls, (k, c); with a floor, what is saved of the most expensive choice."""
        worth = np.asarray(self.quality - CALL_PRICE * self.spent["calls"])
        if self.floor is None:
            return worth
        saved = TIE_BREAK * worth - relative_price(self.spent)
        return np.where(self.quality > NEVER, saved, NO_SAVING)

    def means(self, chosen: IntArray) -> dict[str, float]:
        """Mean amounts per query of a choice (k,)."""
        rows = np.arange(len(chosen))
        return {name: float(self.mass @ amounts[rows, chosen]) for name, amounts in self.spent.items()}

    def errors(self, chosen: IntArray) -> dict[str, float]:
        """Return standard errors of `means`: how much queries differ, within categories and between them."""
        rows, found = np.arange(len(chosen)), {}
        for name, amounts in self.spent.items():
            each, within = amounts[rows, chosen], self.spread[name][rows, chosen]
            variance = self.mass @ (within**2 + (each - self.mass @ each) ** 2)
            found[name] = float(np.sqrt(variance / self.n_queries))
        return found

    def best_with_reserve(self, limits: Mapping[str, float]) -> IntArray | None:
        """Return the choices of highest mean worth that stay within the limits by RESERVE_ERRORS standard errors, (k,).
        If no choice leaves a reserve, there is none. None if nothing keeps the limits."""
        found = self.best(limits)
        if found is None or not limits:
            return found
        first = self.errors(found)
        for step in range(RESERVE_STEPS):
            margin = 2 * RESERVE_ERRORS * step / RESERVE_STEPS
            plan = self.best({name: limit - margin * first[name] for name, limit in limits.items()})
            if plan is None:
                break
            found, errors, used = plan, self.errors(plan), self.means(plan)
            if all(used[n] + RESERVE_ERRORS * errors[n] <= limit * (1 + SLACK) for n, limit in limits.items()):
                break
        return found

    def best(self, limits: Mapping[str, float]) -> IntArray | None:
        """Return the choices of highest mean worth within the limits, (k,); None if there are none."""
        if not limits and self.floor is None:
            return np.asarray(self.worth.argmax(axis=1))
        (k, c), mass = self.worth.shape, self.mass[:, None]
        rows = {name: (mass * self.spent[name]).ravel() for name in limits}
        if self.floor is not None:
            rows[QUALITY_FLOOR], limits = -(mass * self.quality).ravel(), {QUALITY_FLOOR: -self.floor.least, **limits}
        program = MapProgram(k, c, -(mass * self.worth).ravel(), rows, np.zeros(c, dtype=np.int64))
        found = program.minimise(program.objective, limits)
        return None if found is None else np.asarray(found.reshape(k, c).argmax(axis=1))


def choices_of(
    ways: Ways,
    evidence: QualityMatrix,
    costs: ExpertCosts,
    allowed: BoolArray,
    pins: Mapping[int, int],
    floor: Floor | None = None,
) -> Choices:
    """Return every expert alone, and every strategy whose experts are all `allowed` (m,). A pinned category (row ->
    expert) has its expert alone."""
    k, m = evidence.quality.shape
    asks = np.concatenate([np.broadcast_to(np.eye(m), (k, m, m)), ways.asks], axis=1)
    alone = cautious_quality(evidence, costs.cost_usd if floor is None else 0.0)
    together = ways.quality if floor is None else ways.cautious
    quality = np.concatenate([alone, together], axis=1).astype(np.float64)
    barred = np.array([not allowed[list(experts)].all() for experts in (*zip(range(m)), *ways.experts.tolist())])
    quality[:, barred] = NEVER
    for row, expert in pins.items():
        quality[row, np.arange(quality.shape[1]) != expert] = NEVER
    amounts = {name: np.broadcast_to(each, (k, m)) for name, each in costs.per_query().items()}
    amounts["calls"] = np.ones((k, m))
    # Standard deviation of whether an expert is asked; that of a sum is no more than theirs together.
    at_most = np.sqrt(np.clip(asks * (1 - asks), 0.0, None))
    spent, spread = (
        {name: np.einsum("kcm,km->kc", part, each) for name, each in amounts.items()} for part in (asks, at_most)
    )
    mass = evidence.mass.astype(np.float64)
    n_queries = max(float(evidence.count.max(axis=1).sum()), 1.0)
    return Choices(quality, spent, spread, mass / max(float(mass.sum()), 1e-12), n_queries, floor)


def solve_plan(choices: Choices, expert_of: IntArray, limits: Mapping[str, float]) -> StrategyPlan:
    """Return the plan of highest quality within the limits on means, with a reserve.

    Args:
        expert_of: (k,) the map, which keeps the limits and serves if the solver finds nothing.

    Raises:
        InfeasibleBudgetError: no plan within the limits has the floor's quality.
    """
    found = choices.best_with_reserve(limits)
    if found is None and choices.floor is not None:
        best = replace(choices, floor=None).best(limits)
        if best is not None:
            raise choices.floor.refused(float(choices.mass @ choices.quality[np.arange(len(best)), best]))
    chosen = expert_of if found is None else found
    worth = float(choices.mass @ choices.worth[np.arange(len(chosen)), chosen])
    binding = []
    for name in limits:
        freed = choices.best_with_reserve({other: limit for other, limit in limits.items() if other != name})
        if freed is not None and choices.mass @ choices.worth[np.arange(len(freed)), freed] > worth + SLACK:
            binding.append(name)
    quality = float(choices.mass @ choices.quality[np.arange(len(chosen)), chosen])
    return StrategyPlan(chosen, {"quality": quality, **choices.means(chosen)}, tuple(binding))
