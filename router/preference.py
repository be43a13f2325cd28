"""Who serves a query under a policy when every query is judged by itself. Shapes: n sample queries, m experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.config import Budgets
from router.errors import InfeasibleBudgetError
from router.hosting import hosted_beside, hosted_on_bases
from router.policy import ExpertCosts, infeasible_budget, map_program
from router.price import SLACK, budget_prices
from router.types import FloatArray

SHARE_THAT_SERVES = 1e-7
"""Of a mixture; what is less is the solver's rounding."""


@dataclass(frozen=True)
class LearnedChoice:
    """What training found out about choosing by predicted quality.

    `sample` (n, m) is predicted quality of queries that the scorer was not fitted on: prices of budgets are found on
    it. `margin` is the lead over the reference, the expert of highest mean in the sample, that a choice needs.
    """

    sample: FloatArray
    margin: float


@dataclass(frozen=True)
class Preference:
    """The expert of highest predicted quality minus its toll serves, among those that are hosted.

    `tolls` (m,) in units of quality, `hosted` (m,).
    """

    tolls: NDArray[np.float64]
    hosted: NDArray[np.bool_]

    def utility(self, quality: NDArray[np.floating]) -> NDArray[np.float64]:
        """(m,) what an expert is worth to one query; -inf where it is not hosted. In double precision, because prices
        stand where a query is indifferent."""
        return np.where(self.hosted, quality.astype(np.float64) - self.tolls, -np.inf)


def solve_preference(choice: LearnedChoice, mass: FloatArray, costs: ExpertCosts, budgets: Budgets) -> Preference:
    """The hosted experts and the tolls that keep every budget on the sample.

    The hosted experts are those of best quality; where these cannot keep the other budgets, the best fixed mixture that
    can and what fits beside it.

    Args:
        mass: (k,) the traffic's mix of categories, by which costs per category are averaged.

    Raises:
        InfeasibleBudgetError: no expert, or no mixture of experts, keeps a budget.
    """
    sample = choice.sample.astype(np.float64)
    limits = {name: value for name, value in budgets.model_dump().items() if value is not None}
    share = mass / max(float(mass.sum()), 1e-12)
    cost_usd, latency_ms = (
        np.asarray([share @ per_category], dtype=np.float32) for per_category in (costs.cost_usd, costs.latency_ms)
    )
    costs = replace(costs, cost_usd=cost_usd, latency_ms=latency_ms)
    averages = {name: value for name, value in limits.items() if name != "hosted_params_b"}
    most = limits.get("hosted_params_b")
    if most is None:
        everyone = np.ones(sample.shape[1], dtype=bool)
        return Preference(tolls_within(sample, choice.margin, everyone, costs, averages), everyone)
    places = costs.own_params_b, costs.group, costs.group_params_b, most
    hosted = hosted_on_bases(sample, *places)
    try:
        return Preference(tolls_within(sample, choice.margin, hosted, costs, averages), hosted)
    except InfeasibleBudgetError:
        hosted = hosted_beside(mixed_experts(sample, costs, limits), sample, *places)
        return Preference(tolls_within(sample, choice.margin, hosted, costs, averages), hosted)


def tolls_within(
    sample: NDArray[np.float64],
    margin: float,
    hosted: NDArray[np.bool_],
    costs: ExpertCosts,
    limits: Mapping[str, float],
) -> NDArray[np.float64]:
    """(m,) tolls under which the hosted experts keep the limits on averages.

    The toll is the margin on every expert but the reference: an expert must lead it by what errors of prediction do not
    explain. Only where queries so decided exceed a limit, the prices of the limits take its place.

    Args:
        costs: with one row (1, m) for all categories.

    Raises:
        InfeasibleBudgetError: no mixture of the hosted experts keeps a limit.
    """
    everyone = np.arange(sample.shape[1])
    with_margin = np.where(everyone == reference_expert(sample, hosted), 0.0, margin)
    amounts = {name: np.atleast_2d(getattr(costs, name))[0] for name in limits}
    expert = Preference(with_margin, hosted).utility(sample).argmax(axis=1)
    if all(amounts[name][expert].mean(dtype=np.float64) <= limit * (1 + SLACK) for name, limit in limits.items()):
        return with_margin
    tolls = np.zeros(sample.shape[1])
    prices = budget_prices(sample[:, hosted], {name: row[hosted] for name, row in amounts.items()}, limits)
    for name, price in prices.items():
        tolls[hosted] += price * amounts[name][hosted].astype(np.float64)
    return tolls


def mixed_experts(sample: NDArray[np.float64], costs: ExpertCosts, limits: Mapping[str, float]) -> NDArray[np.bool_]:
    """(m,) the experts of the fixed mixture of highest mean quality that keeps every limit, also on what is hosted.

    Raises:
        InfeasibleBudgetError: there is no such mixture; names a budget and the smallest value that would do.
    """
    means = sample.mean(axis=0, keepdims=True).astype(np.float32)
    program = replace(map_program(means, np.ones(1, dtype=np.float32), costs), may_share=True)
    solution = program.minimise(program.objective, limits, costs)
    if solution is None:
        raise infeasible_budget(program, limits, costs)
    return np.asarray(solution[: sample.shape[1]] > SHARE_THAT_SERVES)


def reference_expert(sample: NDArray[np.floating], hosted: NDArray[np.bool_]) -> int:
    """The hosted expert of highest mean predicted quality: the best single one."""
    return int(np.where(hosted, sample.mean(axis=0, dtype=np.float64), -np.inf).argmax())
