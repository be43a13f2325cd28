"""The whole report of a trial."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from eval.metrics.bootstrap import bootstrap_means
from eval.robustness.flip_records import RobustnessRecord
from eval.routing.arm_records import (
    arm_records,
    arm_scores,
    build_lost,
    build_methods,
    build_router_arena,
    category_rows,
    closed,
    expert_rows,
    gains,
    power_of,
    regret_record,
    stage_one_record,
)
from eval.routing.budget_curves import MAP, Frontier, build_aiq, build_frontier, build_hull, points_of
from eval.routing.diagnostics import Cells, Routed, diagnose
from eval.routing.reliability import build_calibration, build_confusion
from eval.routing.routing_records import DataFacts, Diagnostics, Report
from eval.routing.routing_words import headline
from eval.routing.strong_calls import build_cheap_strong
from eval.routing.trial import Trial
from eval.routing.trial_tables import RoutingRequest


def measure(
    trial: Trial,
    request: RoutingRequest,
    facts: DataFacts,
    *,
    rng: np.random.Generator,
    now: datetime,
    robustness: RobustnessRecord | None = None,
) -> Report:
    """The report of a trial: every section that it allows."""
    names = [arm.name for arm in trial.arms]
    scores = arm_scores(trial.test, trial.arms)
    means, draws = scores.mean(axis=0), bootstrap_means(scores, rng)
    records, gain = arm_records(trial, means, draws, rng), gains(trial.arms, means, draws)
    columns = [names.index(name) for name in ("coe", "best_single", "query_oracle")]
    share, share_interval = closed(means, draws, columns)
    power = power_of(scores, trial.arms)
    regret, experts = regret_record(trial, rng), expert_rows(trial, rng)
    methods, frontier = build_methods(trial, rng), build_frontier(trial, rng)
    aiq, aiq_interval = build_aiq(trial, frontier, rng)
    arena = build_router_arena(trial, rng)
    return Report(
        headline=headline(records, gain, share, facts, power),
        command=request.command,
        seed=request.seed,
        created_at=now.isoformat(timespec="seconds"),
        data=facts,
        arms=records,
        gain=gain,
        power=power,
        gap_closed=share,
        gap_closed_interval=share_interval,
        regret=regret,
        stage_one=stage_one_record(trial),
        experts=experts,
        categories=category_rows(trial, trial.arms, scores),
        methods=methods,
        frontier=points_of(frontier),
        calibration=build_calibration(trial),
        confusion=build_confusion(trial.test.categories, trial.likely),
        robustness=robustness,
        cheap_strong=build_cheap_strong(trial, rng),
        diagnostics=build_diagnostics(trial, frontier),
        lost=build_lost(trial),
        aiq=aiq,
        aiq_interval=aiq_interval,
        hull=build_hull(trial, frontier),
        router_arena={name: score for name, (score, _) in arena.items()},
        router_arena_interval={name: interval for name, (_, interval) in arena.items()},
    )


def build_diagnostics(trial: Trial, frontier: Frontier) -> Diagnostics | None:
    """Signs of collapse and degradation; None without the evidence that the map was solved from."""
    if trial.evidence is None:
        return None
    routed = Routed(
        chosen=trial.decided,
        scores=trial.scores,
        categories=trial.test.categories,
        is_fallback=trial.is_fallback,
        expert_of=trial.expert_of,
        experts=trial.test.experts,
    )
    own = trial.default.name if trial.default else MAP
    curves = points_of(frontier).get("active_params_b", {})
    points = curves.get(own, curves.get(MAP, ()))
    return diagnose(routed, Cells(trial.evidence.categories, trial.evidence.count), points, trial.sizes_b)
