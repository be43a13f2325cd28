"""Regret per category: the gain of better choices, as far as a log can tell."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from coe.decision_log.read import NOT_OF_THE_MAP
from coe.eval.log.traffic import Traffic
from coe.eval.log.traffic_records import CategoryRegret, Regret
from coe.eval.metrics.intervals import Gap, Rate, gap, rate
from coe.router.types import DecisionReason

MIN_EFFECTIVE = 10.0
"""Below this effective number of rated answers an expert is not considered as the best of a category (ours)."""


def measure_regret(traffic: Traffic) -> Regret:
    """Regret per category, what the router believes it gave up, and what exploring cost, where the map decides."""
    routed = traffic.rows(traffic.is_routed & ~np.isin(traffic.reason, [reason.value for reason in NOT_OF_THE_MAP]))
    found = tuple(category_regret(name, own) for name, own in routed.parts(routed.category))
    given_up = routed.best_predicted - routed.predicted
    known = np.isfinite(given_up)
    explored = routed.reason == DecisionReason.EXPLORED.value
    return Regret(
        is_explored=bool((routed.propensity < 1).any()),
        n_explored=int(explored.sum()),
        total=total_regret(found),
        coverage=sum(row.n for row in found if row.regret) / max(int(traffic.is_routed.sum()), 1),
        categories=found,
        given_up=float(given_up[known].mean()) if known.any() else None,
        explored=routed.rows(explored).quality,
        exploited=routed.rows(~explored).quality,
    )


def category_regret(name: str, traffic: Traffic) -> CategoryRegret:
    """Estimated reward of the best expert in hindsight, minus the reward of what was served.

    An expert's reward on the whole category is the mean of its rated answers weighted by 1 / propensity
    (self-normalised IPS). The largest of several noisy means is an overestimate, so the expert is chosen on one
    half of the questions and valued on the other, and the two halves are averaged (cross-fitting, ours). A decision
    without exploration says nothing about the other experts.
    """
    rated = traffic.rows(traffic.is_rated)
    served = rated.quality
    candidates = {expert: value for expert, value in expert_values(rated).items() if value.n >= MIN_EFFECTIVE}
    best = max(candidates, key=lambda expert: candidates[expert].value, default=None)
    found = partial(CategoryRegret, category=name, n=len(traffic), served=served, best=best)
    if served is None:
        return found(regret=None, unknown="no feedback")
    if len(candidates) < 2 and not (traffic.propensity < 1).any():
        return found(regret=None, unknown="not explored")
    if len(candidates) == 1:
        return found(regret=None, unknown="only one expert has enough rated answers")
    halves = [half for number in (0, 1) if (half := half_value(rated, number)) is not None]
    if not candidates or len(halves) < 2:
        return found(regret=None, unknown="too few rated answers")
    value, n = sum(half.value for half in halves) / 2, sum(half.n for half in halves)
    low, high = (sum(getattr(half, end) for half in halves) / 2 for end in ("low", "high"))
    # Two independent halves: their mean is sqrt(2) more certain than one.
    hindsight = Rate(
        value=value, low=value - (value - low) / math.sqrt(2), high=value + (high - value) / math.sqrt(2), n=n
    )
    return found(regret=gap(hindsight, served))


def expert_values(rated: Traffic) -> dict[str, Rate]:
    """Reward of each expert on the traffic, weighted by 1 / propensity."""
    found = {
        expert: rate(own.reward, 1.0 / own.propensity, own.clusters)
        for expert, own in sorted(rated.parts(rated.expert), key=lambda part: part[0])
    }
    return {expert: value for expert, value in found.items() if value is not None}


def half_value(rated: Traffic, number: int) -> Rate | None:
    """The reward, on one half of the questions, of the expert that is best on the other half."""
    names, member = np.unique(rated.question, return_inverse=True)
    is_own = np.random.default_rng(0).permutation(len(names))[member] % 2 == number
    other, own = expert_values(rated.rows(~is_own)), expert_values(rated.rows(is_own))
    known = [expert for expert in other if expert in own and other[expert].n >= MIN_EFFECTIVE / 2]
    return own[max(known, key=lambda expert: other[expert].value)] if known else None


def total_regret(rows: tuple[CategoryRegret, ...]) -> Gap | None:
    """Mean over categories, weighted by their traffic; their errors are independent."""
    known = [(row.n, row.regret) for row in rows if row.regret is not None]
    total = sum(n for n, _ in known)
    if not total:
        return None
    value = sum(n * found.value for n, found in known) / total
    down = math.hypot(*(n / total * (found.value - found.low) for n, found in known))
    up = math.hypot(*(n / total * (found.high - found.value) for n, found in known))
    return Gap(value=value, low=value - down, high=value + up)
