"""The choice of an expert under a policy if every query is judged on its own. Shapes: n sample queries, k rows of the
map (categories and, last, `general`), m experts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import InfeasibleBudgetError
from coe.router.config.policy import Budgets
from coe.router.policy.budget_price import SLACK, budget_price
from coe.router.policy.fallbacks import fallbacks
from coe.router.policy.hosting import kept_in_memory
from coe.router.policy.map_solver import ExpertCosts
from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray

RESERVE_ERRORS = 2.0
"""Standard errors of a mean amount by which prices stay below a limit (ours). With none, every other sample has prices
that exceed the limit in the long run."""


@dataclass(frozen=True)
class LearnedChoice:
    """Settings that training found for choosing by predicted quality.

    `sample` (n, m) is predicted quality of queries that the scorer was not fitted on: prices of budgets are found on
    it. `margin` is the lead over the reference, the expert of highest mean in the sample, that a choice needs. `rows`
    (n,) is the row of the map that each query was classified as.
    """

    sample: FloatArray
    margin: float
    rows: IntArray


@dataclass(frozen=True)
class Preference:
    """The expert of highest predicted quality minus its toll serves, among those that are hosted.

    `tolls` in units of quality: (m,), or (k, m) where what is priced depends on the query's row. `hosted` (m,).
    `barred` (k, m) says why an expert may not stand in for another; None: every hosted one may.
    """

    tolls: Float64Array
    hosted: BoolArray
    barred: tuple[tuple[str | None, ...], ...] | None = None

    def worth(self, quality: NDArray[np.floating], row: int) -> Float64Array:
        """Return what each expert is worth to one query of a row, as an array of shape (m,). It is in double precision,
        because a query is indifferent exactly where prices are."""
        toll = self.tolls if self.tolls.ndim == 1 else self.tolls[row]
        return np.asarray(quality.astype(np.float64) - toll)

    def utility(self, quality: NDArray[np.floating], row: int) -> Float64Array:
        """Return what `worth` does, with -inf for experts that are not hosted."""
        return np.where(self.hosted, self.worth(quality, row), -np.inf)

    def bars(self, row: int) -> tuple[str | None, ...]:
        """Return why each of m experts may not stand in for another on queries of a row; None if it may."""
        if self.barred is not None:
            return self.barred[row]
        return tuple(None if is_hosted else "is not hosted under the policy" for is_hosted in self.hosted)


@dataclass(frozen=True)
class Priced:
    """Costs of experts by row of the map, and the rows of the sample.

    `amounts` by budget: (m,), or (k, m) where they depend on the row. `rows` (n,). `pinned` (n,) is the expert that
    each query's category is pinned to, -1 where it is not; None where no category is pinned.
    """

    amounts: Mapping[str, Float64Array]
    rows: IntArray
    pinned: IntArray | None = None

    def of_sample(self, name: str) -> Float64Array:
        """Return amounts of the sample's queries, (m,) or (n, m); for a pinned query its pin's, whatever the expert."""
        amount = self.amounts[name]
        rows = amount if amount.ndim == 1 else amount[self.rows]
        if self.pinned is None:
            return rows
        return pinned_sample(np.broadcast_to(rows, (len(self.pinned), rows.shape[-1])), self.pinned)

    def mean_of(self, name: str, expert: IntArray) -> float:
        """Mean amount when the sample's queries go to experts (n,)."""
        amount = self.of_sample(name)
        return float((amount[expert] if amount.ndim == 1 else amount[np.arange(len(expert)), expert]).mean())


def solve_preference(
    choice: LearnedChoice,
    expert_of: IntArray,
    mass: FloatArray,
    costs: ExpertCosts,
    budgets: Budgets,
    pins: Mapping[int, int] | None = None,
) -> Preference:
    """Return the hosted experts and the tolls that keep a budget on an average on the sample. If memory is limited, the
    map's experts are hosted, which keeps all budgets, and the best others that fit.

    Args:
        expert_of: (k,) the map under the same budgets and pins.
        mass: (k,) the traffic's mix of rows.
        pins: row -> expert; queries of these rows go there, and what that costs counts against the budgets.

    Raises:
        InfeasibleBudgetError: no choice of the hosted experts keeps the budget.
    """
    limits = budgets.model_dump(exclude_none=True)
    if len(budgets.averages) > 1:
        raise ValueError(f"{len(budgets.averages)} budgets on averages, of which a score keeps one")
    priced = priced_by_row(choice.rows, mass, costs, pins or {})
    sample = pinned_sample(choice.sample.astype(np.float64), priced.pinned)
    hosted = np.ones(sample.shape[1], dtype=bool)
    if (most := limits.get("hosted_params_b")) is not None:
        core = np.isin(np.arange(len(hosted)), expert_of)
        hosted = kept_in_memory(core, sample.mean(axis=0), costs.memory, most)
    tolls = tolls_within(sample, choice.margin, hosted, priced, budgets.averages)
    return Preference(tolls, hosted, fallbacks(costs.per_query(), limits, hosted, {}, len(mass)).barred)


def pinned_sample(sample: Float64Array, pinned: IntArray | None) -> Float64Array:
    """Return the sample (n, m) with nothing to choose for pinned queries: their pin's quality in every column."""
    if pinned is None:
        return sample
    return np.where(pinned[:, None] < 0, sample, sample[np.arange(len(sample)), pinned][:, None])


def averaged(costs: ExpertCosts, mass: FloatArray) -> ExpertCosts:
    """Return costs of one row (1, m), averaged by the traffic's mix (k,)."""
    share = mass / max(float(mass.sum()), 1e-12)
    cost_usd, latency_ms = (
        np.asarray([share @ by_row], dtype=np.float32) for by_row in (costs.cost_usd, costs.latency_ms)
    )
    return replace(costs, cost_usd=cost_usd, latency_ms=latency_ms)


def priced_by_row(
    rows: IntArray, mass: FloatArray, costs: ExpertCosts, pins: Mapping[int, int] = MappingProxyType({})
) -> Priced:
    """Return the amounts that each budget on an average counts, by row for costs and latencies. Costs differ by
    category, and the expensive experts get the queries of some categories. At an expert's mean cost, limits would be
    exceeded on traffic though they are kept on the sample."""
    mean = averaged(costs, mass)
    by_row = {"cost_usd": costs.cost_usd, "latency_ms": costs.latency_ms}
    amounts = {"active_params_b": costs.active_params_b.astype(np.float64)}
    for name, per_row in by_row.items():
        means = np.asarray(getattr(mean, name)[0], dtype=np.float64)
        amounts[name] = amounts_by_row(per_row, means, share_of_rows(rows, len(mass)))
    if not pins:
        return Priced(amounts, rows)
    expert_of_row = np.full(len(mass), -1, dtype=np.int64)
    expert_of_row[list(pins)] = list(pins.values())
    return Priced(amounts, rows, expert_of_row[rows])


def share_of_rows(rows: IntArray, k: int) -> Float64Array:
    """Return the share of queries (n,) in each row, of shape (k,)."""
    return np.asarray(np.bincount(rows, minlength=k) / len(rows), dtype=np.float64)


def amounts_by_row(
    per_row: NDArray[np.floating], means: NDArray[np.floating], share: NDArray[np.floating]
) -> Float64Array:
    """Return amounts of a budget by row of the map, (k, m), whose mean over a sample is each expert's mean amount. The
    sample's mix of rows is not quite the traffic's, because stage 1 errs; a limit that an expert alone keeps must
    remain feasible. An amount of 0 is unknown (nothing of the category was answered) and counts as the expert's mean,
    unless all of the expert's amounts are 0.

    Args:
        per_row: (k, m) mean amounts of a query of a row; `means` (m,) of any query.
        share: (k,) of the sample's queries in each row.
    """
    known = np.where(per_row > 0, per_row, means).astype(np.float64)
    in_sample = np.asarray(share @ known, dtype=np.float64)
    correction = np.divide(means, in_sample, out=np.ones(len(in_sample)), where=in_sample > 0)
    return np.asarray(known * correction)


def tolls_within(
    sample: Float64Array,
    margin: float,
    hosted: BoolArray,
    priced: Priced,
    limits: Mapping[str, float],
) -> Float64Array:
    """Return tolls, (m,) or (k, m), under which the hosted experts keep the limit on an average, if there is one. The
    toll is the margin on every expert but the reference: an expert must lead it by what errors of prediction do not
    explain. If queries decided so exceed the limit, its price takes the margin's place.

    Raises:
        InfeasibleBudgetError: no choice of the hosted experts keeps the limit.
    """
    everyone = np.arange(sample.shape[1])
    with_margin = np.where(everyone == reference_expert(sample, hosted), 0.0, margin)
    expert = np.where(hosted, sample - with_margin, -np.inf).argmax(axis=1)
    if all(priced.mean_of(name, expert) <= limit * (1 + SLACK) for name, limit in limits.items()):
        return with_margin
    [(name, limit)] = limits.items()
    price = price_with_reserve(name, sample[:, hosted], priced.of_sample(name)[..., hosted], limit)
    return price * priced.amounts[name]


def price_with_reserve(name: str, quality: Float64Array, amounts: Float64Array, limit: float) -> float:
    """Return a price that keeps the limit on the sample and, in 39 of 40 cases, on all the traffic it was drawn from.
    It is found again for a limit that is lower by `RESERVE_ERRORS` standard errors of the mean amount. If no choice
    keeps that, there is no reserve.

    Args:
        quality: (n, m); `amounts` (m,) or (n, m).

    Raises:
        InfeasibleBudgetError: no choice keeps the limit.
    """
    price = budget_price(name, quality, amounts, limit)
    expert = (quality - price * amounts).argmax(axis=1)
    each = np.broadcast_to(amounts, quality.shape)[np.arange(len(expert)), expert]
    try:
        lower = limit - RESERVE_ERRORS * float(each.std()) / math.sqrt(len(expert))
        return budget_price(name, quality, amounts, lower)
    except InfeasibleBudgetError:
        return price


def reference_expert(sample: NDArray[np.floating], hosted: BoolArray) -> int:
    """Return the hosted expert of highest mean predicted quality: the best single one."""
    return int(np.where(hosted, sample.mean(axis=0, dtype=np.float64), -np.inf).argmax())
