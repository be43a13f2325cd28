"""Quality against a budget: what a map, a soft score and a fixed mixture of experts win with more of it.

Shapes: n test queries, s sample queries, k rows of the map, m experts, g limits (rising). Nothing is chosen on test
scores: maps and mixtures come from fit scores, prices and hosted experts from predicted quality on the sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from eval.metrics.intervals import bootstrap_means, percentile_interval
from eval.routing.arm_records import difference, shares
from eval.routing.baselines import best_mixture, best_single
from eval.routing.routing_records import FrontierPoint
from eval.routing.trial import Spending
from router.hosting import hosted_experts
from router.map_solver import ExpertCosts, solve_map
from router.policy_config import Budgets
from router.preference import amounts_by_row, share_of_rows
from router.price import SLACK, make_problem, one_price, require_feasible
from router.types import Float64Array, IntArray

BudgetName = Literal["active_params_b", "cost_usd", "hosted_params_b"]

GRID = 10
MAP_SAMPLE = 2000
"""Queries that represent the mix of categories, each at least once."""
MIXTURE = "best_mixture"


@dataclass(frozen=True)
class Budget:
    """One kind of budget: `limits` (g,) rising, `amounts` (m,) known when deciding, `test_amounts` (m,) or (n, m) what
    was used on the test queries (unused for hosted parameters). `by_row` (k, m): the amounts known when deciding for a
    query of a row of the map, where they depend on it."""

    name: BudgetName
    limits: Float64Array
    amounts: Float64Array
    test_amounts: Float64Array
    by_row: Float64Array | None = None


def budget_grid(name: BudgetName, amounts: Float64Array, extra: Sequence[float] = ()) -> Float64Array:
    """Limits from the least that one expert needs to the most that can be used, in equal ratios (in equal steps where
    an expert is free), with `extra` ones that are at least the least."""
    low, high = float(amounts.min()), float(amounts.sum() if name == "hosted_params_b" else amounts.max())
    grid = np.geomspace(low, high, GRID) if low > 0 else np.linspace(low, high, GRID)
    grid[0], grid[-1] = low, high
    kept = [value for value in extra if value >= low]
    return np.unique(np.concatenate([grid, kept]))


def map_curve(quality: Float64Array, mass: Float64Array, rows: IntArray, budget: Budget) -> list[Spending]:
    """The map of highest mean quality under each limit, by mixed-integer program, applied to predicted categories.

    Args:
        quality: (k, m) measured on fit queries; `mass` (k,) their mix.
        rows: (n,) the row that each test query was classified as.
    """
    m = quality.shape[1]
    found = []
    for limit in budget.limits:
        solution = solve_map(
            quality.astype(np.float32),
            mass.astype(np.float32),
            expert_costs(budget, mass),
            Budgets(**{budget.name: float(limit)}),
        )
        hosted = np.zeros(m, dtype=bool)
        hosted[solution.expert_of] = True
        found.append(Spending(np.eye(m)[solution.expert_of[rows]], hosted))
    return found


def drawn_map_curve(quality: Float64Array, mass: Float64Array, rows: IntArray, budget: Budget) -> list[Spending]:
    """The curve of `map_curve` with the queries of a category split between experts by a draw, so that no budget is
    left over: the linear relaxation of the map. Not for hosted parameters, which a draw does not save."""
    number = np.repeat(np.arange(len(mass)), np.ceil(MAP_SAMPLE * mass / mass.sum()).astype(np.int64))
    return soft_curve(quality[number], quality[rows], budget, number, rows)


def expert_costs(budget: Budget, mass: Float64Array) -> ExpertCosts:
    """The amounts in the one place that this budget counts; experts share no weights here. `mass` (k,) is the mix."""
    m = len(budget.amounts)
    zeros = np.zeros(m, dtype=np.float32)
    places = {"hosted_params_b": zeros, "active_params_b": zeros, "cost_usd": zeros}
    amounts = budget.amounts
    if budget.by_row is not None:
        amounts = amounts_by_row(budget.by_row, budget.amounts, mass / mass.sum())
    places[budget.name] = amounts.astype(np.float32)
    return ExpertCosts(
        own_params_b=places["hosted_params_b"],
        group=np.zeros(m, dtype=np.int64),
        group_params_b=np.zeros(1, dtype=np.float32),
        active_params_b=places["active_params_b"],
        cost_usd=places["cost_usd"],
        latency_ms=zeros,
    )


def soft_curve(
    sample_quality: Float64Array,
    test_quality: Float64Array,
    budget: Budget,
    sample_rows: IntArray | None = None,
    test_rows: IntArray | None = None,
) -> list[Spending]:
    """Each query's best expert after the price that keeps the limit on the sample, or among the hosted experts.

    Args:
        sample_quality: (s, m) predicted for queries that the method was not fitted on.
        test_quality: (n, m) predicted for the test queries.
        sample_rows: (s,) rows of the map, and `test_rows` (n,): where one is None, amounts are the same in all rows.
    """
    m = test_quality.shape[1]
    if budget.name == "hosted_params_b":
        masks = hosted_experts(sample_quality, budget.amounts, budget.limits.tolist())
        return [Spending(np.eye(m)[np.where(mask, test_quality, -np.inf).argmax(axis=1)], mask) for mask in masks]
    everyone = np.ones(m, dtype=bool)
    on_sample = on_test = budget.amounts
    if budget.by_row is not None and sample_rows is not None and test_rows is not None:
        share = share_of_rows(sample_rows, len(budget.by_row))
        by_row = amounts_by_row(budget.by_row, budget.amounts, share)
        on_sample, on_test = by_row[sample_rows], by_row[test_rows]
    return [
        Spending(priced_draw(budget.name, float(limit), sample_quality, on_sample, test_quality, on_test), everyone)
        for limit in budget.limits
    ]


def priced_draw(
    name: str,
    limit: float,
    sample_quality: Float64Array,
    on_sample: Float64Array,
    quality: Float64Array,
    amounts: Float64Array,
) -> Float64Array:
    """(n, m) probability that each expert serves a query: each query takes its best expert after the price of a budget,
    drawn from the two neighbouring prices such that the mean amount on the sample is the limit.

    Args:
        on_sample: (m,) or (s, m) amounts of the sample's queries; `amounts` (m,) or (n, m) of those to decide.

    Raises:
        InfeasibleBudgetError: no choice of experts keeps the limit on the sample.
    """
    problem = make_problem(sample_quality, {name: on_sample}, {name: limit})
    require_feasible(problem)
    prices = [np.array([price]) for price in one_price(problem)]
    above, below = (problem.play(problem.tolls(price))[1][0] for price in prices)
    share = float(np.clip((problem.limits[0] - below) / (above - below), 0.0, 1.0)) if above > below else 0.0
    asked = replace(problem, quality=quality, amounts=np.atleast_2d(amounts)[None] / problem.scales[0])
    probs = np.zeros(quality.shape)
    for price, weight in zip(prices, (share, 1 - share), strict=True):
        probs[np.arange(len(quality)), asked.take_best(asked.tolls(price))] += weight
    return probs


def mixture_curve(fit_means: Float64Array, n: int, budget: Budget) -> list[Spending]:
    """The best random choice: the best mixture of two experts under each limit; of hosted experts the best single
    one."""
    m = len(fit_means)
    found = []
    for limit in budget.limits:
        if budget.name == "hosted_params_b":
            fits = budget.amounts <= limit * (1 + SLACK)
            probs = np.eye(m)[best_single(fit_means[None, :].astype(np.float32), fits)]
        else:
            mixed = best_mixture(fit_means, budget.amounts, float(limit) * (1 + SLACK))
            assert mixed is not None, "every limit of the grid admits an expert"
            probs = mixed
        found.append(Spending(np.broadcast_to(probs, (n, m)), probs > 0))
    return found


@dataclass(frozen=True)
class MeasuredCurve:
    """Points of a curve, and b bootstrap draws (b, g) of each point's mean score and of the amount that it used."""

    points: tuple[FrontierPoint, ...]
    score_draws: Float64Array
    amount_draws: Float64Array


def measure_curves(
    curves: Mapping[str, Sequence[Spending]],
    budget: Budget,
    fit_means: Float64Array,
    scores: Float64Array,
    experts: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, MeasuredCurve]:
    """Test quality of every curve at every limit, with its paired difference to the fixed mixture that may spend the
    limit, or what the point used on the test queries where that is more.

    Args:
        curves: g spendings by name.
        fit_means: (m,) mean scores on the fit queries, which the mixture is chosen by.
        scores: (n, m) on the test queries.
    """
    found = {}
    for name, curve in curves.items():
        used = np.array([amounts_used(part, budget, len(scores)).mean() for part in curve])
        fair = replace(budget, limits=np.maximum(budget.limits, used))
        rivals = mixture_curve(fit_means, len(scores), fair)
        wins = np.stack([(part.probs * scores).sum(axis=1) for part in (*curve, *rivals)], axis=1)
        spent = np.stack([amounts_used(part, budget, len(scores)) for part in curve], axis=1)
        g = len(curve)
        means, draws = wins.mean(axis=0), bootstrap_means(np.concatenate([wins, spent], axis=1), rng)
        points = tuple(
            FrontierPoint(
                budget=float(budget.limits[i]),
                amount=float(used[i]),
                mean_score=float(means[i]),
                interval=percentile_interval(draws[:, i]),
                gain=None if name == MIXTURE else difference(means, draws, i, g + i),
                shares=shares(part.probs, experts),
            )
            for i, part in enumerate(curve)
        )
        found[name] = MeasuredCurve(points, draws[:, :g], draws[:, 2 * g :])
    return found


def amounts_used(part: Spending, budget: Budget, n: int) -> Float64Array:
    """Amount (n,) of each test query; what is hosted is the same for all."""
    if budget.name == "hosted_params_b":
        return np.full(n, float(budget.amounts[part.hosted].sum()))
    calls = part.probs if part.asked is None else part.asked
    return np.asarray((calls * budget.test_amounts).sum(axis=1))


def first_reaching(points: Sequence[FrontierPoint], quality: float) -> FrontierPoint | None:
    """The point of least amount whose mean score is at least `quality`; None when no point reaches it."""
    reaching = [point for point in points if point.mean_score >= quality - 1e-9]
    return min(reaching, key=lambda point: point.amount) if reaching else None
