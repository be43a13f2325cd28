"""The whole report of a trial. Shapes: n queries, m experts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from coe.base.shares import calibration_error
from coe.eval.metrics.intervals import queries_to_show, smallest_shown
from coe.eval.metrics.paired import Paired
from coe.eval.routing.frontier import build_frontier
from coe.eval.routing.routing_page import headline
from coe.eval.routing.routing_records import (
    Arm,
    CategoryRow,
    DataFacts,
    ExpertRow,
    Power,
    Report,
    StageOne,
)
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.trial import Choice, Trial, mean_costs
from coe.router.types import GENERAL, Float64Array

REFERENCE_ARMS = ("coe", "best_single", "best_single_hindsight", "map_true", "knn", "best_mixture")
"""Names of the arms that every other one is compared with; the last needs a budget."""
POWER_DIFFERENCE = 0.02
"""Difference of mean scores for which a report gives the number of queries that would show it: the margin of `coe
retrain` (ours)."""


def measure(
    trial: Trial, request: RoutingRequest, facts: DataFacts, *, rng: np.random.Generator, now: datetime
) -> Report:
    """Build the report of a trial, with every section that it allows."""
    served = {arm.name: expected_scores(arm.probs, trial) for arm in trial.arms}
    methods = {f"method {each.name}": expected_scores(each.probs, trial) for each in trial.methods}
    alone = {f"expert {name}": trial.scores[:, e] for e, name in enumerate(trial.test.experts)}
    scores = Paired.of({**served, **methods, **alone}, rng)
    report = Report(
        headline="",
        command=request.command,
        seed=request.seed,
        created_at=now.isoformat(timespec="seconds"),
        data=facts,
        arms={arm.name: arm_record(trial, arm, arm.name, scores) for arm in trial.arms},
        methods={each.name: arm_record(trial, each, f"method {each.name}", scores) for each in trial.methods},
        power=power_of(served["coe"] - served["best_single"]),
        stage_one=stage_one_record(trial),
        experts=expert_rows(trial, scores),
        categories=category_rows(trial, served),
        frontier=build_frontier(trial, rng),
    )
    return report.model_copy(update={"headline": headline(report)})


def expected_scores(probs: Float64Array, trial: Trial) -> Float64Array:
    """Return the expected score of a choice (n, m) on each test query, of shape (n,)."""
    return np.asarray((probs * trial.scores).sum(axis=1))


def expected_amount(probs: Float64Array, amounts: Float64Array) -> float | None:
    """Return the mean expected amount (n, m) or (m,) over queries; None if an expert that may answer has no known
    one."""
    used = probs > 0
    values = np.where(used, np.broadcast_to(amounts, probs.shape), 0.0)
    return None if np.isnan(values).any() else float((probs * values).sum(axis=1).mean())


def shares(probs: Float64Array, experts: Sequence[str]) -> dict[str, float]:
    """Return the share of the queries by expert, largest first, without zeros."""
    means = probs.mean(axis=0)
    return {experts[e]: float(means[e]) for e in np.argsort(-means, kind="stable") if means[e] > 0}


def arm_record(trial: Trial, arm: Choice, column: str, scores: Paired) -> Arm:
    """Build the record of an arm, whose scores are a column of `scores`."""
    score = scores.mean(column)
    return Arm(
        label=arm.label,
        how=arm.how,
        group=arm.group,
        mean_score=score.mean,
        interval=score.interval,
        mean_cost_usd=expected_amount(arm.calls, trial.cost_usd),
        mean_active_params_b=expected_amount(arm.calls, trial.sizes_b),
        mean_calls=float(arm.calls.sum(axis=1).mean()),
        shares=shares(arm.probs, trial.test.experts),
        gap_closed=scores.closed(column, "best_single", "query_oracle"),
        binding=arm.binding,
        gain={
            other: scores.minus(column, other) for other in REFERENCE_ARMS if other in scores.place and other != column
        },
    )


def power_of(differences: Float64Array) -> Power:
    """Return what the differences (n,) of n test queries can show."""
    n = len(differences)
    error = float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Power(
        smallest_shown=smallest_shown(error),
        difference=POWER_DIFFERENCE,
        queries=queries_to_show(POWER_DIFFERENCE, error, n),
    )


def stage_one_record(trial: Trial) -> StageOne:
    """Measure the category classifier on the test queries."""
    right = np.array([found == true for found, true in zip(trial.likely, trial.test.categories, strict=True)])
    sure = np.array([not decision.is_fallback for decision in trial.decisions])
    confidence = np.array([decision.confidence for decision in trial.decisions])
    return StageOne(
        n_categories=len(trial.expert_of) - 1,
        accuracy=float(right.mean()),
        coverage=float(sure.mean()),
        error_when_sure=float((~right[sure]).mean()) if sure.any() else None,
        calibration_error=calibration_error(confidence, right.astype(np.float64)),
    )


def expert_rows(trial: Trial, scores: Paired) -> tuple[ExpertRow, ...]:
    """Return the rows of every expert alone, best first."""
    sizes, price = trial.sizes_b, mean_costs(trial.test)
    share = np.bincount(trial.decided, minlength=len(sizes)) / len(trial.decided)
    rows = []
    for e, name in enumerate(trial.test.experts):
        score = scores.mean(f"expert {name}")
        rows.append(
            ExpertRow(
                expert=name,
                fit_score=float(trial.fit_means[e]),
                mean_score=score.mean,
                interval=score.interval,
                active_params_b=None if np.isnan(sizes[e]) else float(sizes[e]),
                mean_cost_usd=None if np.isnan(price[e]) else float(price[e]),
                share=float(share[e]),
            )
        )
    return tuple(sorted(rows, key=lambda row: -row.mean_score))


def category_rows(trial: Trial, served: Mapping[str, Float64Array]) -> tuple[CategoryRow, ...]:
    """Return the rows of every true category of the test queries, largest first. `served` are scores (n,) by arm."""
    labels, likely = np.asarray(trial.test.categories), np.asarray(trial.likely)
    fallback = np.array([decision.is_fallback for decision in trial.decisions])
    in_fit = Counter(trial.fit.categories)
    rows = []
    for category, count in Counter(trial.test.categories).most_common():
        inside = labels == category
        alone = trial.scores[inside].mean(axis=0).tolist()
        rows.append(
            CategoryRow(
                category=category,
                n_fit=in_fit[category],
                n_test=count,
                expert=trial.expert_of.get(category, trial.expert_of[GENERAL]),
                accuracy=float((likely[inside] == category).mean()),
                fallback_share=float(fallback[inside].mean()),
                scores={name: float(column[inside].mean()) for name, column in served.items()},
                experts=dict(zip(trial.test.experts, alone, strict=True)),
            )
        )
    return tuple(rows)
