"""Who serves a query under a policy when every query is judged by itself. Shapes: n sample queries, m experts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.config import Budgets
from router.hosting import hosted_on_bases
from router.policy import ExpertCosts
from router.price import budget_prices
from router.types import FloatArray


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

    def utility(self, quality: FloatArray) -> NDArray[np.float64]:
        """(m,) what an expert is worth to one query; -inf where it is not hosted. In double precision, because prices
        stand where a query is indifferent."""
        return np.where(self.hosted, quality.astype(np.float64) - self.tolls, -np.inf)


def solve_preference(choice: LearnedChoice, mass: FloatArray, costs: ExpertCosts, budgets: Budgets) -> Preference:
    """The hosted experts and the tolls that keep every budget on the sample.

    Without a budget on an average, the toll is the margin on every expert but the reference: an expert must lead it by
    what errors of prediction do not explain. With one, the prices of budgets take its place.

    Args:
        mass: (k,) the traffic's mix of categories, by which costs per category are averaged.

    Raises:
        InfeasibleBudgetError: no expert, or no mixture of experts, keeps a budget.
    """
    sample = choice.sample.astype(np.float64)
    limits = {name: value for name, value in budgets.model_dump().items() if value is not None}
    hosted = np.ones(sample.shape[1], dtype=bool)
    most = limits.pop("hosted_params_b", None)
    if most is not None:
        hosted = hosted_on_bases(sample, costs.own_params_b, costs.group, costs.group_params_b, most)
    share = mass / max(float(mass.sum()), 1e-12)
    amounts: dict[str, NDArray[np.floating]] = {
        "active_params_b": costs.active_params_b[hosted],
        "cost_usd": share @ costs.cost_usd[:, hosted],
        "latency_ms": share @ costs.latency_ms[:, hosted],
    }
    tolls = np.zeros(sample.shape[1])
    if limits:
        prices = budget_prices(sample[:, hosted], amounts, limits)
        for name, price in prices.items():
            tolls[hosted] += price * amounts[name].astype(np.float64)
    else:
        tolls[np.arange(len(tolls)) != reference_expert(sample, hosted)] = choice.margin
    return Preference(tolls, hosted)


def reference_expert(sample: NDArray[np.floating], hosted: NDArray[np.bool_]) -> int:
    """The hosted expert of highest mean predicted quality: the best single one."""
    return int(np.where(hosted, sample.mean(axis=0, dtype=np.float64), -np.inf).argmax())
