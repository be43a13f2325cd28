"""The whole report of a trial, with the signs that a router has collapsed, degraded or not learned (HoME, arXiv
2408.05430; the figures are ours).

Shapes: k rows of the quality matrix, m experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from math import ceil

import numpy as np

from base.calibration import brier, calibration_error, reliability_bins
from eval.metrics.cheap_strong import call_figures
from eval.metrics.intervals import bootstrap_means
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
from eval.routing.routing_records import (
    Calibration,
    CategoryFinding,
    CheapStrong,
    Confusion,
    DataFacts,
    Diagnostics,
    FrontierPoint,
    ReliabilityPoint,
    Report,
    ThinCell,
)
from eval.routing.routing_request import RoutingRequest
from eval.routing.routing_words import headline
from eval.routing.trial import Trial
from router.types import GENERAL, Float64Array, FloatArray

CATEGORY = "category"
SHOWN_CATEGORIES = 20
OTHER = "(other)"
RARE_SHARE = 0.01
LARGEST_SHARE = 0.99
"""Share of the spending above the least that the largest expert takes when it takes it all, but for rounding."""
CELL_ERROR = 0.1
NEEDED_PER_CELL = ceil((0.5 / CELL_ERROR) ** 2)
"""Graded answers that bring the standard error of a mean score in [0, 1] to at most 0.1, whatever the scores: 25."""
SHOWN_CELLS = 20


def measure(
    trial: Trial,
    request: RoutingRequest,
    facts: DataFacts,
    *,
    rng: np.random.Generator,
    now: datetime,
) -> Report:
    """The report of a trial: every section that it allows."""
    names = [arm.name for arm in trial.arms]
    scores = arm_scores(trial.test, trial.arms)
    means, draws = scores.mean(axis=0), bootstrap_means(scores, rng)
    records, gain = arm_records(trial, means, draws, rng), gains(trial.arms, means, draws)
    columns = [names.index(name) for name in ("coe", "best_single", "query_oracle")]
    share = closed(means, draws, columns)
    power = power_of(scores, trial.arms)
    regret, experts = regret_record(trial, rng), expert_rows(trial, rng)
    methods, frontier = build_methods(trial, rng), build_frontier(trial, rng)
    aiq, arena = build_aiq(trial, frontier, rng), build_router_arena(trial, rng)
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
        regret=regret,
        stage_one=stage_one_record(trial),
        experts=experts,
        categories=category_rows(trial, trial.arms, scores),
        methods=methods,
        frontier=points_of(frontier),
        calibration=build_calibration(trial),
        confusion=build_confusion(trial.test.categories, trial.likely),
        cheap_strong=build_cheap_strong(trial, rng),
        diagnostics=diagnose(trial, own_points(trial, frontier)),
        lost=build_lost(trial),
        aiq=aiq,
        hull=build_hull(trial, frontier),
        router_arena=arena,
    )


def own_points(trial: Trial, frontier: Frontier) -> tuple[FrontierPoint, ...]:
    """The reported method's curve over active parameters, or the map's; empty where sizes are unknown."""
    curves = points_of(frontier).get("active_params_b", {})
    own = trial.default.name if trial.default else MAP
    return curves.get(own, curves.get(MAP, ()))


def build_calibration(trial: Trial) -> dict[str, Calibration]:
    """`category`: the confidence in the most likely category against whether it is the true one. Of each method: its
    predicted score of the expert that it chose, cut to [0, 1], against the real score."""
    right = np.array([a == b for a, b in zip(trial.likely, trial.test.categories, strict=True)], dtype=np.float64)
    found = {CATEGORY: calibration(np.array([d.confidence for d in trial.decisions]), right)}
    rows = np.arange(len(trial.scores))
    for method in trial.methods:
        predicted = np.clip(method.quality[rows, method.chosen], 0.0, 1.0).astype(np.float64)
        found[method.name] = calibration(predicted, trial.scores[rows, method.chosen])
    return found


def calibration(predicted: Float64Array, observed: Float64Array) -> Calibration:
    """Calibration of predictions (n,) in [0, 1] against what came of them (n,)."""
    bins = reliability_bins(predicted, observed)
    rows = zip(bins.predicted.tolist(), bins.observed.tolist(), bins.count.tolist(), strict=True)
    return Calibration(
        n=len(predicted),
        ece=calibration_error(predicted, observed),
        brier=brier(predicted, observed),
        points=tuple(ReliabilityPoint(predicted=p, observed=o, count=c) for p, o, c in rows),
    )


def build_confusion(categories: Sequence[str], likely: Sequence[str], shown: int = SHOWN_CATEGORIES) -> Confusion:
    """Counts of true (row) by most likely (column) category: the `shown` largest true ones, then all others as one."""
    largest = [name for name, _ in Counter(categories).most_common(shown)]
    names = largest if set(categories) | set(likely) <= set(largest) else [*largest, OTHER]
    number = {name: i for i, name in enumerate(largest)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for true, found in zip(categories, likely, strict=True):
        counts[number.get(true, len(largest)), number.get(found, len(largest))] += 1
    return Confusion(categories=tuple(names), counts=tuple(tuple(row) for row in counts.tolist()))


def build_cheap_strong(trial: Trial, rng: np.random.Generator) -> CheapStrong | None:
    """The record of two experts; None unless there are exactly two. The weak one is the one of lower mean score on the
    fit queries."""
    if len(trial.test.experts) != 2:
        return None
    weak, strong = np.argsort(trial.fit_means, kind="stable").tolist()
    low, high = trial.scores[:, weak], trial.scores[:, strong]
    orders: dict[str, Float64Array] = {
        method.name: method.quality[:, strong] - method.quality[:, weak] for method in trial.methods
    }
    orders |= {"random": np.zeros(len(low)), "oracle": high - low}
    return CheapStrong(
        weak=trial.test.experts[weak],
        strong=trial.test.experts[strong],
        weak_score=float(low.mean()),
        strong_score=float(high.mean()),
        oracle_score=float(np.maximum(low, high).mean()),
        orders={name: call_figures(gain, low, high, rng) for name, gain in orders.items()},
    )


def diagnose(trial: Trial, frontier: Sequence[FrontierPoint]) -> Diagnostics | None:
    """Collects all findings; None without the evidence that the map was solved from. `frontier`: the router's points
    over active parameters, empty where sizes are unknown."""
    if trial.evidence is None:
        return None
    experts = trial.test.experts
    shares = np.bincount(trial.decided, minlength=len(experts)) / len(trial.decided)
    top = int(shares.argmax())
    thin = thin_cells(trial.evidence.count, trial.rows, experts)
    return Diagnostics(
        routing_entropy=routing_entropy(shares),
        top_expert=experts[top],
        top_share=float(shares[top]),
        rare={experts[e]: float(shares[e]) for e in np.argsort(shares) if shares[e] < RARE_SHARE},
        is_largest_always=largest_always(frontier, trial.sizes_b, experts),
        degraded=degraded(trial),
        underused=underused(trial),
        needed_per_cell=NEEDED_PER_CELL,
        thin=tuple(thin[:SHOWN_CELLS]),
        n_thin=len(thin),
    )


def routing_entropy(shares: Float64Array) -> float:
    """Entropy of the experts' shares (m,) over log m: 0 when one serves all, 1 when all serve equally."""
    used = shares[shares > 0]
    return abs(float((used * np.log(used)).sum() / np.log(max(len(shares), 2))))


def largest_always(points: Sequence[FrontierPoint], sizes: Float64Array, experts: Sequence[str]) -> bool | None:
    """Returns True where, at every budget, all that is spent above the least goes to the largest expert: a router that
    only mixes the smallest with the largest expert has learned nothing about the others. None with fewer than three
    experts of different sizes, or without points."""
    if not points or len(np.unique(sizes)) < 3:
        return None
    largest, least = int(sizes.argmax()), float(sizes.min())
    for point in points:
        spent = sum(share * (float(sizes[experts.index(name)]) - least) for name, share in point.shares.items())
        on_largest = point.shares.get(experts[largest], 0.0) * (float(sizes[largest]) - least)
        if spent > 0 and on_largest < LARGEST_SHARE * spent:
            return False
    return True


def degraded(trial: Trial) -> tuple[CategoryFinding, ...]:
    """Categories of the map of which more than half of the test queries were too uncertain and went to general."""
    labels, found = np.asarray(trial.test.categories), []
    for category, n in Counter(trial.test.categories).most_common():
        share = float(trial.is_fallback[labels == category].mean())
        if category in trial.expert_of and category != GENERAL and share > 0.5:
            found.append(CategoryFinding(category=category, n=n, share=share, expert=trial.expert_of[GENERAL]))
    return tuple(found)


def underused(trial: Trial) -> tuple[CategoryFinding, ...]:
    """Categories whose expert in the map scores higher on the test queries than general's, and yet serves fewer."""
    labels, found = np.asarray(trial.test.categories), []
    served_by = trial.expert_of[GENERAL]
    for category, n in Counter(trial.test.categories).most_common():
        own, general = trial.numbers([trial.expert_of.get(category, served_by), served_by]).tolist()
        inside = labels == category
        to_own, to_general = ((trial.decided[inside] == expert).mean() for expert in (own, general))
        is_better = trial.scores[inside, own].mean() > trial.scores[inside, general].mean()
        if own != general and is_better and to_own < to_general:
            found.append(CategoryFinding(category=category, n=n, share=float(to_general), expert=served_by))
    return tuple(found)


def thin_cells(counts: FloatArray, categories: Sequence[str], experts: Sequence[str]) -> list[ThinCell]:
    """Cells (k, m) with fewer than `NEEDED_PER_CELL` graded answers, fewest first; `general` cannot be sampled from."""
    is_learned = np.array([category != GENERAL for category in categories])
    rows, columns = np.nonzero((counts < NEEDED_PER_CELL) & is_learned[:, None])
    order = np.argsort(counts[rows, columns], kind="stable")
    return [
        ThinCell(
            category=categories[rows[i]],
            expert=experts[columns[i]],
            count=int(counts[rows[i], columns[i]]),
            missing=NEEDED_PER_CELL - int(counts[rows[i], columns[i]]),
        )
        for i in order
    ]
