"""A run of a router over a test table, with everything that a report measures on it.

Shapes: n test queries, k categories, m experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np

from coe.eval.routing import baselines
from coe.eval.routing.routing_records import Group
from coe.router.config.policy import Budgets
from coe.router.types import GENERAL, BoolArray, Float64Array, FloatArray, IntArray, RoutingDecision
from coe.training.types import OutcomeTable

HINDSIGHT: Final = "hindsight"
"""Name of the group of choices that need knowledge from after the query."""


@dataclass(frozen=True)
class Choice:
    """A named arm: the probability that each expert's answer is served (n, m), and, if that differs, the experts
    `asked` (n, m). `binding` names the limits without which it would be better."""

    name: str
    label: str
    how: str
    probs: Float64Array
    group: Group = "reference"
    asked: Float64Array | None = None
    binding: tuple[str, ...] = ()

    @property
    def calls(self) -> Float64Array:
        """The expected number of calls of each expert, of shape (n, m)."""
        return self.probs if self.asked is None else self.asked


@dataclass(frozen=True)
class Trial:
    """A router's decisions on the test table, and the inputs of the reference arms, methods and frontiers.

    Both tables have the same experts and complete scores; embeddings have unit rows. `how` describes how the router
    chooses. Costs and sizes of an expert are NaN if unknown. `methods` has the router of every kind of scorer, by kind;
    `strategies` are arms that ask several experts. `limited` has the router's experts (n,) by budget, at each limit of
    `known_budgets`, and by `quality_floor` the cheapest plan's.
    """

    fit: OutcomeTable
    test: OutcomeTable
    fit_embeddings: FloatArray
    test_embeddings: FloatArray
    decisions: Sequence[RoutingDecision]
    expert_of: Mapping[str, str]
    budgets: Budgets = field(default_factory=Budgets)
    how: str = "the map's expert for the predicted category"
    binding: tuple[str, ...] = ()
    methods: tuple[Choice, ...] = ()
    strategies: tuple[Choice, ...] = ()
    limited: Mapping[str, Sequence[IntArray]] = field(default_factory=dict)

    def numbers(self, names: Sequence[str]) -> IntArray:
        """Return the numbers of experts, given by name."""
        index = {name: i for i, name in enumerate(self.test.experts)}
        return np.array([index[name] for name in names], dtype=np.int64)

    @cached_property
    def decided(self) -> IntArray:
        """The router's experts, of shape (n,)."""
        return self.numbers([decision.expert for decision in self.decisions])

    @cached_property
    def mapped(self) -> IntArray:
        """The map's expert for the true category, of shape (n,); an unlearned category is served as `general`."""
        general = self.expert_of[GENERAL]
        return self.numbers([self.expert_of.get(category, general) for category in self.test.categories])

    @cached_property
    def likely(self) -> tuple[str, ...]:
        """The most likely categories, before any fallback, of shape (n,)."""
        return tuple(decision.likely_category for decision in self.decisions)

    @cached_property
    def scores(self) -> Float64Array:
        """The scores on the test queries, of shape (n, m)."""
        return self.test.scores.astype(np.float64)

    @cached_property
    def cost_usd(self) -> Float64Array:
        """The cost of the test queries in USD, of shape (n, m)."""
        return costs(self.test)

    @cached_property
    def sizes_b(self) -> Float64Array:
        """The billions of active parameters, of shape (m,)."""
        return active_params(self.test)

    @cached_property
    def fit_means(self) -> Float64Array:
        """The mean scores on the fit queries, of shape (m,)."""
        return np.asarray(self.fit.scores.mean(axis=0, dtype=np.float64))

    @cached_property
    def arms(self) -> list[Choice]:
        """The router, every reference arm, and strategies that ask several experts."""
        return [*choices(self), *self.strategies]


def active_params(table: OutcomeTable) -> Float64Array:
    """Return the billions of active parameters, NaN if unknown, of shape (m,)."""
    return np.array([table.active_params_b.get(name, np.nan) for name in table.experts])


def known_means(amounts: FloatArray) -> Float64Array:
    """Return the means of the known cells of amounts (n, m), NaN for a column without any, of shape (m,)."""
    known = np.isfinite(amounts)
    count = known.sum(axis=0)
    sums = np.where(known, amounts, 0.0).sum(axis=0, dtype=np.float64)
    return np.asarray(np.divide(sums, count, out=np.full(len(count), np.nan), where=count > 0))


def with_means(amounts: FloatArray) -> Float64Array:
    """Replace unknown cells of amounts (n, m) by their expert's mean; they stay NaN if the expert has none known."""
    return np.where(np.isfinite(amounts), amounts.astype(np.float64), known_means(amounts))


def costs(table: OutcomeTable) -> Float64Array:
    """Return the costs in USD of shape (n, m), filled as in `with_means`."""
    return with_means(table.cost_usd)


def filled_costs(table: OutcomeTable) -> float:
    """Return the share of the costs that `costs` fills with their expert's mean; an expert without any is left out."""
    known = np.isfinite(table.cost_usd)
    priced = known[:, known.any(axis=0)]
    return float(1 - priced.mean()) if priced.size else 0.0


def mean_costs(table: OutcomeTable) -> Float64Array:
    """Return the mean USD per query, NaN if unknown, of shape (m,)."""
    return np.asarray(costs(table).mean(axis=0), dtype=np.float64)


def costs_by_category(table: OutcomeTable, categories: Sequence[str]) -> Float64Array:
    """Return the mean USD per query of each of k categories and, last, of any query, of shape (k+1, m). A category
    without a known cost has the expert's mean of any query; NaN if the expert has none at all."""
    means, own_category = mean_costs(table), np.array(table.categories)
    by_category = [known_means(table.cost_usd[own_category == category]) for category in categories]
    return np.stack([*(np.where(np.isfinite(own), own, means) for own in by_category), means])


def averaged_limits(table: OutcomeTable, budgets: Budgets) -> list[tuple[float, Float64Array]]:
    """Return the limits on averages that are set, each with the mean amounts (m,) of the experts; NaN is unknown."""
    limits = [
        (budgets.active_params_b, active_params(table)),
        (budgets.cost_usd, mean_costs(table)),
        (budgets.latency_ms, with_means(table.latency_ms).mean(axis=0)),
    ]
    return [(limit, amounts) for limit, amounts in limits if limit is not None]


def within_budgets(table: OutcomeTable, budgets: Budgets) -> BoolArray:
    """Return the experts that alone stay within every set budget, of shape (m,); an unknown amount does not."""
    allowed = np.ones(len(table.experts), dtype=bool)
    for limit, amounts in averaged_limits(table, budgets):
        allowed &= amounts <= limit
    return allowed & hosted_together(table, budgets).diagonal()


def hosted_together(table: OutcomeTable, budgets: Budgets) -> BoolArray:
    """Return which two experts fit in memory together, and on the diagonal which one alone, of shape (m, m)."""
    m = len(table.experts)
    if budgets.hosted_params_b is None:
        return np.ones((m, m), dtype=bool)
    sizes = active_params(table)
    return np.asarray(sizes[:, None] + np.where(np.eye(m, dtype=bool), 0.0, sizes) <= budgets.hosted_params_b)


def choices(trial: Trial) -> list[Choice]:
    """Return the router and every reference arm; all but the hindsight arms are chosen on the fit table only."""
    fit, test = trial.fit, trial.test
    n, m = len(test.prompt_ids), len(test.experts)
    sizes = active_params(test)
    allowed = within_budgets(fit, trial.budgets)
    is_limited = bool(trial.budgets.model_dump(exclude_none=True)) and bool(allowed.any())
    single, best = (baselines.best_single(part.scores, allowed if is_limited else None) for part in (fit, test))
    near = baselines.knn(fit.scores, trial.fit_embeddings, trial.test_embeddings)
    label = f"Best single{' within the budget' if is_limited else ''}"
    named, best_named = f"{label} ({test.experts[single]})", f"{label} in hindsight ({test.experts[best]})"

    def given(experts: IntArray) -> Float64Array:
        return baselines.one_hot(experts, m)

    def always(expert: int) -> Float64Array:
        return given(np.full(n, expert))

    by_category = given(baselines.category_oracle(test.scores, test.categories))
    by_query = given(baselines.query_oracle(test.scores, sizes))
    on_labels = "the map, had it known every true category"

    arms = [
        Choice("coe", "This router", trial.how, given(trial.decided), "this router", binding=trial.binding),
        Choice("best_single", named, "one expert for all, the best on the fit data", always(single)),
        Choice(
            "best_single_hindsight",
            best_named,
            "one expert for all, the best on the test data",
            always(best),
            HINDSIGHT,
        ),
        Choice("knn", "k-NN", "the best expert on the nearest fit queries, whatever it costs", given(near)),
        Choice("map_true", "Map on true labels", on_labels, given(trial.mapped), HINDSIGHT),
        Choice("category_oracle", "Category oracle", "the best expert per true category", by_category, HINDSIGHT),
        Choice("query_oracle", "Query oracle", "the best expert per query", by_query, HINDSIGHT),
    ]
    mixture = fixed_mixture(trial)
    if mixture is not None:
        how = "a fixed random mixture of experts, the best on the fit data within the budget"
        arms.append(Choice("best_mixture", "Best mixture", how, np.broadcast_to(mixture, (n, m))))
    return arms


def fixed_mixture(trial: Trial) -> Float64Array | None:
    """Return the best random mixture within the one limited average, of experts that may be hosted together; None
    without such a budget, or with several."""
    chosen = averaged_limits(trial.fit, trial.budgets)
    if len(chosen) != 1:
        return None
    limit, amounts = chosen[0]
    return baselines.best_mixture(trial.fit_means, amounts, limit, hosted_together(trial.fit, trial.budgets))
