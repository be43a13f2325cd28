"""From a table, decisions and embeddings to the record of a report. Shapes: n test queries, m experts, a arms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eval.metrics.bootstrap import bootstrap_means, percentile_interval
from eval.metrics.gap import gap_closed, gap_closed_draws
from eval.metrics.power import queries_to_show, smallest_shown
from eval.routing import baselines
from eval.routing.regret_parts import CHOICES, PARTS, RegretColumns, regret_columns
from eval.routing.routing_records import (
    Arm,
    CategoryRegret,
    CategoryRow,
    Difference,
    ExpertRow,
    Power,
    Range,
    Regret,
    StageOne,
)
from router.config import Budgets
from router.types import GENERAL, FloatArray, RoutingDecision
from training.types import OutcomeTable

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
TOLD_DIFFERENCE = 0.02
"""The difference of mean scores that a report tells the needed queries for: the margin of `coe retrain` (ours)."""


@dataclass(frozen=True)
class Trial:
    """A router's decisions on the test table, and what the reference arms need. Both tables have the same experts and
    complete scores; embeddings have unit rows."""

    fit: OutcomeTable
    test: OutcomeTable
    fit_embeddings: FloatArray
    test_embeddings: FloatArray
    decisions: Sequence[RoutingDecision]
    expert_of: Mapping[str, str]
    budgets: Budgets = field(default_factory=Budgets)
    how: str = "the map's expert for the predicted category"

    def numbers(self, names: Sequence[str]) -> IntArray:
        """Expert numbers of expert names."""
        index = {name: i for i, name in enumerate(self.test.experts)}
        return np.array([index[name] for name in names], dtype=np.int64)

    @property
    def decided(self) -> IntArray:
        return self.numbers([decision.expert for decision in self.decisions])

    @property
    def mapped(self) -> IntArray:
        """The router's map applied to the true category; a category it never learned is served as `general`."""
        general = self.expert_of[GENERAL]
        return self.numbers([self.expert_of.get(category, general) for category in self.test.categories])


@dataclass(frozen=True)
class Choice:
    """A named arm: who answers each query, as probabilities (n, m)."""

    name: str
    label: str
    how: str
    probs: Float64Array


def active_params(table: OutcomeTable) -> Float64Array:
    """(m,) billions of active parameters, NaN where unknown."""
    return np.array([table.active_params_b.get(name, np.nan) for name in table.experts])


def known_means(amounts: FloatArray) -> Float64Array:
    """(m,) means of what is known of amounts (n, m), NaN where nothing is."""
    known = np.isfinite(amounts)
    count = known.sum(axis=0)
    sums = np.where(known, amounts, 0.0).sum(axis=0, dtype=np.float64)
    return np.asarray(np.divide(sums, count, out=np.full(len(count), np.nan), where=count > 0))


def with_means(amounts: FloatArray) -> Float64Array:
    """Amounts (n, m) where an unknown cell takes its expert's mean; it stays NaN where the expert has none known."""
    return np.where(np.isfinite(amounts), amounts.astype(np.float64), known_means(amounts))


def costs(table: OutcomeTable) -> Float64Array:
    """(n, m) USD, as `with_means`."""
    return with_means(table.cost_usd)


def filled_costs(table: OutcomeTable) -> float:
    """Share of the costs that `costs` fills with their expert's mean; an expert without any is left out."""
    known = np.isfinite(table.cost_usd)
    priced = known[:, known.any(axis=0)]
    return float(1 - priced.mean()) if priced.size else 0.0


def mean_costs(table: OutcomeTable) -> Float64Array:
    """(m,) mean USD per query, NaN where unknown."""
    return np.asarray(costs(table).mean(axis=0), dtype=np.float64)


def costs_by_category(table: OutcomeTable, categories: Sequence[str]) -> Float64Array:
    """(k+1, m) mean USD per query of each of k categories and, last, of any query. An expert's mean of any query where
    none of a category's costs is known, NaN where none at all is."""
    means, own_category = mean_costs(table), np.array(table.categories)
    by_category = [known_means(table.cost_usd[own_category == category]) for category in categories]
    return np.stack([*(np.where(np.isfinite(own), own, means) for own in by_category), means])


def mean_latencies(table: OutcomeTable) -> Float64Array:
    """(m,) mean milliseconds per query, NaN where none is known."""
    return np.asarray(with_means(table.latency_ms).mean(axis=0), dtype=np.float64)


def averaged_limits(table: OutcomeTable, budgets: Budgets) -> list[tuple[float, Float64Array]]:
    """The limits on averages that are set, each with the mean amounts (m,) of the experts; NaN is unknown."""
    limits = [
        (budgets.active_params_b, active_params(table)),
        (budgets.cost_usd, mean_costs(table)),
        (budgets.latency_ms, mean_latencies(table)),
    ]
    return [(limit, amounts) for limit, amounts in limits if limit is not None]


def within_budgets(table: OutcomeTable, budgets: Budgets) -> NDArray[np.bool_]:
    """(m,) experts that alone keep within every budget that is set; what is unknown does not."""
    allowed = np.ones(len(table.experts), dtype=bool)
    for limit, amounts in averaged_limits(table, budgets):
        allowed &= amounts <= limit
    return allowed & hosted_together(table, budgets).diagonal()


def hosted_together(table: OutcomeTable, budgets: Budgets) -> NDArray[np.bool_]:
    """(m, m) which two experts may be kept in memory together; on the diagonal, which one alone."""
    m = len(table.experts)
    if budgets.hosted_params_b is None:
        return np.ones((m, m), dtype=bool)
    sizes = active_params(table)
    return np.asarray(sizes[:, None] + np.where(np.eye(m, dtype=bool), 0.0, sizes) <= budgets.hosted_params_b)


def choices(trial: Trial) -> list[Choice]:
    """The router and every reference arm, chosen on the fit table only but for the two oracles."""
    fit, test = trial.fit, trial.test
    n, m = len(test.prompt_ids), len(test.experts)
    sizes = active_params(test)
    allowed = within_budgets(fit, trial.budgets)
    is_limited = bool(trial.budgets.model_dump(exclude_none=True)) and bool(allowed.any())
    single = baselines.best_single(fit.scores, allowed if is_limited else None)
    near = baselines.knn(fit.scores, trial.fit_embeddings, trial.test_embeddings)
    label = f"Best single{' within the budget' if is_limited else ''} ({test.experts[single]})"

    def given(experts: IntArray) -> Float64Array:
        return baselines.one_hot(experts, m)

    def always(expert: int) -> Float64Array:
        return given(np.full(n, expert))

    by_category = given(baselines.category_oracle(test.scores, test.categories))
    by_query = given(baselines.query_oracle(test.scores, sizes))

    arms = [
        Choice("coe", "This router", trial.how, given(trial.decided)),
        Choice("random", "Random", "any expert, all equally likely (expected value)", baselines.random_choice(n, m)),
        Choice("best_single", label, "one expert for all, the best on the fit data", always(single)),
        Choice("knn", "k-NN", "the best expert on the nearest fit queries, whatever it costs", given(near)),
        Choice("category_oracle", "Category oracle", "the best expert per true category, in hindsight", by_category),
        Choice("query_oracle", "Query oracle", "the best expert per query, in hindsight", by_query),
    ]
    least = baselines.cheapest(mean_costs(fit), sizes)
    if least is not None:
        smallest = f"Cheapest ({test.experts[least]})"
        arms.append(Choice("cheapest", smallest, "one expert for all, the cheapest (or smallest)", always(least)))
    mixture = fixed_mixture(trial)
    if mixture is not None:
        how = "a fixed random mixture of experts, the best on the fit data within the budget"
        arms.append(Choice("best_mixture", "Best mixture", how, np.broadcast_to(mixture, (n, m)).copy()))
    return arms


def fixed_mixture(trial: Trial) -> Float64Array | None:
    """What a coin could do within the one average that is limited, between experts that may be hosted together; None
    without such a budget, or with several."""
    means = trial.fit.scores.mean(axis=0, dtype=np.float64)
    chosen = averaged_limits(trial.fit, trial.budgets)
    if len(chosen) != 1:
        return None
    limit, amounts = chosen[0]
    return baselines.best_mixture(means, amounts, limit, hosted_together(trial.fit, trial.budgets))


def arm_scores(test: OutcomeTable, arms: Sequence[Choice]) -> Float64Array:
    """(n, a) expected score of each arm on each query."""
    return np.stack([(arm.probs * test.scores).sum(axis=1) for arm in arms], axis=1)


def expected_amount(probs: Float64Array, amounts: Float64Array) -> float | None:
    """Mean over queries of the expected amount (n, m) or (m,); None when an expert that may answer has none known."""
    used = probs > 0
    values = np.where(used, np.broadcast_to(amounts, probs.shape), 0.0)
    return None if np.isnan(values).any() else float((probs * values).sum(axis=1).mean())


def shares(probs: Float64Array, experts: Sequence[str]) -> dict[str, float]:
    means = probs.mean(axis=0)
    return {experts[e]: float(means[e]) for e in np.argsort(-means, kind="stable") if means[e] > 0}


def arm_records(test: OutcomeTable, arms: Sequence[Choice], means: Float64Array, draws: Float64Array) -> dict[str, Arm]:
    """Records by arm name. `means` (a,), `draws` (b, a)."""
    price, sizes = costs(test), active_params(test)
    return {
        arm.name: Arm(
            label=arm.label,
            how=arm.how,
            mean_score=float(means[i]),
            interval=percentile_interval(draws[:, i]),
            mean_cost_usd=expected_amount(arm.probs, price),
            mean_active_params_b=expected_amount(arm.probs, sizes),
            shares=shares(arm.probs, test.experts),
        )
        for i, arm in enumerate(arms)
    }


def gains(arms: Sequence[Choice], means: Float64Array, draws: Float64Array) -> dict[str, Difference]:
    """What `coe` wins over each arm that could be deployed."""
    column = {arm.name: i for i, arm in enumerate(arms)}
    own = column["coe"]
    return {
        name: Difference(mean=float(means[own] - means[i]), interval=percentile_interval(draws[:, own] - draws[:, i]))
        for name, i in column.items()
        if name in ("best_single", "knn", "random", "best_mixture")
    }


def power_of(scores: Float64Array, arms: Sequence[Choice]) -> Power:
    """What n test queries can tell of the router and the best single expert. `scores` (n, a)."""
    column = {arm.name: i for i, arm in enumerate(arms)}
    differences = scores[:, column["coe"]] - scores[:, column["best_single"]]
    n = len(differences)
    error = float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Power(
        smallest_shown=smallest_shown(error),
        difference=TOLD_DIFFERENCE,
        queries=queries_to_show(TOLD_DIFFERENCE, error, n),
    )


def closed(arms: Sequence[Choice], means: Float64Array, draws: Float64Array) -> tuple[float | None, Range | None]:
    """`gap_closed` with its interval."""
    column = {arm.name: i for i, arm in enumerate(arms)}
    index = [column[name] for name in ("coe", "best_single", "query_oracle")]
    value = gap_closed(*(float(means[i]) for i in index))
    drawn = gap_closed_draws(*(draws[:, i] for i in index))
    return value, percentile_interval(drawn) if value is not None and len(drawn) else None


def regret_record(trial: Trial, rng: np.random.Generator) -> Regret:
    """The accounting over all queries and per true category. Offline nothing fails, so what was decided answers."""
    test = trial.test
    chosen = {
        "query_oracle": baselines.query_oracle(test.scores, active_params(test)),
        "category_oracle": baselines.category_oracle(test.scores, test.categories),
        "map_true": trial.mapped,
        "router": trial.decided,
        "served": trial.decided,
    }
    columns = regret_columns(test.scores.astype(np.float64), chosen)
    values, parts, total = account(columns, rng)
    labels = np.asarray(test.categories)
    rows = []
    for category, count in Counter(test.categories).most_common():
        inside = account(RegretColumns(columns.scores[labels == category]), rng)
        rows.append(CategoryRegret(category=category, n=count, values=inside[0], parts=inside[1], total=inside[2]))
    return Regret(values=values, parts=parts, total=total, by_category=tuple(rows))


def account(
    columns: RegretColumns, rng: np.random.Generator
) -> tuple[dict[str, float], dict[str, Difference], Difference]:
    """Mean scores of the choices, the parts and their sum."""
    measured = np.column_stack([columns.parts, columns.total])
    draws = bootstrap_means(measured, rng)
    differences = [
        Difference(mean=float(mean), interval=percentile_interval(draws[:, i]))
        for i, mean in enumerate(measured.mean(axis=0))
    ]
    values = dict(zip(CHOICES, (float(mean) for mean in columns.scores.mean(axis=0)), strict=True))
    return values, dict(zip(PARTS, differences, strict=False)), differences[-1]


def stage_one_record(trial: Trial) -> StageOne:
    """How well the true category was found."""
    right = np.array([d.likely_category == c for d, c in zip(trial.decisions, trial.test.categories, strict=True)])
    sure = np.array([not decision.is_fallback for decision in trial.decisions])
    return StageOne(
        n_categories=len(trial.expert_of) - 1,
        accuracy=float(right.mean()),
        coverage=float(sure.mean()),
        error_when_sure=float((~right[sure]).mean()) if sure.any() else None,
    )


def expert_rows(trial: Trial, rng: np.random.Generator) -> tuple[ExpertRow, ...]:
    """Every expert alone, best first."""
    test = trial.test
    scores = test.scores.astype(np.float64)
    means, draws = scores.mean(axis=0), bootstrap_means(scores, rng)
    sizes, price = active_params(test), mean_costs(test)
    fit_means = trial.fit.scores.mean(axis=0, dtype=np.float64)
    share = np.bincount(trial.decided, minlength=len(test.experts)) / len(test.prompt_ids)
    return tuple(
        ExpertRow(
            expert=test.experts[e],
            fit_score=float(fit_means[e]),
            mean_score=float(means[e]),
            interval=percentile_interval(draws[:, e]),
            active_params_b=None if np.isnan(sizes[e]) else float(sizes[e]),
            mean_cost_usd=None if np.isnan(price[e]) else float(price[e]),
            share=float(share[e]),
        )
        for e in np.argsort(-means, kind="stable")
    )


def category_rows(trial: Trial, arms: Sequence[Choice], scores: Float64Array) -> tuple[CategoryRow, ...]:
    """Every true category of the test queries, largest first. `scores` (n, a)."""
    labels = np.asarray(trial.test.categories)
    likely = np.array([decision.likely_category for decision in trial.decisions])
    fallback = np.array([decision.is_fallback for decision in trial.decisions])
    in_fit = Counter(trial.fit.categories)
    rows = []
    for category, count in Counter(trial.test.categories).most_common():
        inside = labels == category
        rows.append(
            CategoryRow(
                category=category,
                n_fit=in_fit[category],
                n_test=count,
                expert=trial.expert_of.get(category, trial.expert_of[GENERAL]),
                accuracy=float((likely[inside] == category).mean()),
                fallback_share=float(fallback[inside].mean()),
                scores={arm.name: float(scores[inside, i].mean()) for i, arm in enumerate(arms)},
            )
        )
    return tuple(rows)
