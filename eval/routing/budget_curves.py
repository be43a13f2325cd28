"""The frontier over each budget whose amounts are known, and quality over cost as one number (AIQ)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.metrics.intervals import Estimate, bootstrap_means
from eval.metrics.quality_over_cost import aiq, non_decreasing_hull
from eval.routing.frontier import (
    MIXTURE,
    Budget,
    BudgetName,
    MeasuredCurve,
    budget_grid,
    drawn_map_curve,
    map_curve,
    measure_curves,
    mixture_curve,
    soft_curve,
)
from eval.routing.routing_records import FrontierPoint
from eval.routing.trial import Spending, Trial, costs_by_category, mean_costs
from router.types import Float64Array

Frontier = dict[str, dict[str, MeasuredCurve]]

MAP = "map"
DRAWN_MAP = "map_drawn"
EXPERTS = "experts"


def build_frontier(trial: Trial, rng: np.random.Generator) -> Frontier:
    """By budget: the map, the map with a draw, the fixed mixture, every method with a sample and every strategy that
    was played under limits. A budget is left out where the amount is unknown of an expert, or the same for all."""
    found: Frontier = {}
    rows, evidence = None, trial.evidence
    if evidence is not None:
        rows = np.array([trial.rows.index(decision.category) for decision in trial.decisions], dtype=np.int64)
    for budget in known_budgets(trial):
        curves: dict[str, Sequence[Spending]] = {}
        if evidence is not None and rows is not None:
            quality, mass = evidence.quality.astype(np.float64), evidence.mass.astype(np.float64)
            curves[MAP] = map_curve(quality, mass, rows, budget)
            if budget.name != "hosted_params_b":
                curves[DRAWN_MAP] = drawn_map_curve(quality, mass, rows, budget)
        for method in trial.methods:
            if method.sample_quality is not None:
                curves[method.name] = soft_curve(
                    method.sample_quality, method.quality, budget, method.sample_rows, rows
                )
        curves |= trial.limited.get(budget.name, {})
        curves[MIXTURE] = mixture_curve(trial.fit_means, len(trial.scores), budget)
        if len(curves) > 1:
            found[budget.name] = measure_curves(curves, budget, trial.fit_means, trial.scores, trial.test.experts, rng)
    return found


def known_budgets(trial: Trial) -> list[Budget]:
    """Budgets whose amounts are known of every expert and differ, each over its own grid, what each expert alone needs,
    the limit that the trial sets, and what its strategies spend."""
    fit_cost_usd = mean_costs(trial.fit)
    by_row = None if trial.evidence is None else costs_by_category(trial.fit, trial.rows[:-1])
    kinds: list[tuple[BudgetName, Float64Array, Float64Array, Float64Array | None]] = [
        ("active_params_b", trial.sizes_b, trial.sizes_b, None),
        ("cost_usd", fit_cost_usd, trial.cost_usd, by_row),
        ("hosted_params_b", trial.sizes_b, trial.sizes_b, None),
    ]
    limits = {name: [value] for name, value in trial.budgets.model_dump(exclude_none=True).items()}
    for arm in trial.strategies:
        for name, used in (("active_params_b", trial.sizes_b), ("cost_usd", trial.cost_usd)):
            limits.setdefault(name, []).append(float((arm.calls * used).sum(axis=1).mean()))
    return [
        Budget(name, budget_grid(name, amounts, [*amounts, *limits.get(name, ())]), amounts, used, rows)
        for name, amounts, used, rows in kinds
        if np.isfinite(amounts).all() and np.isfinite(used).all() and len(np.unique(amounts)) > 1
    ]


def points_of(frontier: Frontier) -> dict[str, dict[str, tuple[FrontierPoint, ...]]]:
    """The points of a frontier by budget and curve, as a report keeps them."""
    return {budget: {name: curve.points for name, curve in curves.items()} for budget, curves in frontier.items()}


def cost_points(trial: Trial, frontier: Frontier) -> dict[str, Float64Array]:
    """(p, 2) test cost and mean score by curve, `experts` for the experts alone; empty where costs are unknown."""
    if "cost_usd" not in frontier:
        return {}
    alone = np.column_stack([trial.cost_usd.mean(axis=0), trial.scores.mean(axis=0)])
    curves = {
        name: np.array([(point.amount, point.mean_score) for point in curve.points])
        for name, curve in frontier["cost_usd"].items()
    }
    return {**curves, EXPERTS: alone}


def build_aiq(trial: Trial, frontier: Frontier, rng: np.random.Generator) -> dict[str, Estimate]:
    """AIQ by curve with its interval over queries, up to the mean cost of the most expensive expert for all of them;
    empty where costs are unknown or all 0. `experts` is what random mixtures of experts reach in hindsight: a curve
    above it gains by reading the query."""
    points = cost_points(trial, frontier)
    largest = float(points[EXPERTS][:, 0].max()) if points else 0.0
    if largest == 0:
        return {}
    m = trial.scores.shape[1]
    alone = bootstrap_means(np.concatenate([trial.cost_usd, trial.scores], axis=1), rng)
    draws = {name: (curve.amount_draws, curve.score_draws) for name, curve in frontier["cost_usd"].items()}
    draws[EXPERTS] = alone[:, :m], alone[:, m:]
    return {
        name: Estimate.of(
            aiq(part[:, 0], part[:, 1], largest),
            np.array([aiq(*pair, largest) for pair in zip(*draws[name], strict=True)]),
        )
        for name, part in points.items()
    }


def build_hull(trial: Trial, frontier: Frontier) -> tuple[tuple[float, float], ...]:
    """Corners (USD per query, mean score) of the hull of all that can be deployed; it leaves out the null router."""
    points = cost_points(trial, frontier)
    if not points:
        return ()
    together = np.concatenate(list(points.values()))
    hull = non_decreasing_hull(together[:, 0], together[:, 1])
    return tuple((float(cost), float(quality)) for cost, quality in hull if quality > 0)
