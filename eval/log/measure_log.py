"""The report on traffic, measured on the columns of the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from eval.log.category_regret import measure_regret
from eval.log.traffic import CAPPED, MALFORMED, NOT_ROUTED, PROBE, Names, Traffic
from eval.log.traffic_page import headline, warnings
from eval.log.traffic_records import (
    Bias,
    Bucket,
    Cell,
    Group,
    LogReport,
    Moved,
    Prequential,
    RatedShare,
    Switch,
    Totals,
)
from eval.metrics.intervals import gap, rate
from router.types import Float64Array
from training.feedback_bias import ReplyBin, ReplyRates

BUCKETS_S = (60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0)
MAX_BUCKETS = 60
USEFUL = 0.5
"""Rewards from here on count as a good answer: the middle of their range."""
SHOWN_MOVES = 12
MIN_MOVE = 0.02
"""Share of a category's traffic that must have changed its expert to be shown (ours)."""
QUARTERS = ("fastest quarter", "second quarter", "third quarter", "slowest quarter")
By = Literal["category", "expert", "latency"]


def measure_log(traffic: Traffic, *, command: str, now: datetime, **beside: Any) -> LogReport:
    """The report on at least one decision; `beside` are fields that the traffic itself does not tell."""
    step = bucket_seconds(float(traffic.at[-1] - traffic.at[0]))
    report = LogReport(
        headline="",
        warnings=(),
        command=command,
        created_at=now.isoformat(timespec="seconds"),
        totals=totals(traffic),
        categories=groups(traffic.rows(traffic.is_routed), "category"),
        experts=groups(traffic, "expert"),
        cells=cells(traffic.rows(traffic.is_routed)),
        timeline=timeline(traffic, step),
        bucket_s=step,
        regret=measure_regret(traffic),
        predictions=prequential(traffic.rows(traffic.is_routed)),
        bias=measure_bias(traffic),
        switches=measure_switches(traffic),
        model_changes=traffic.model_changes,
        **beside,
    )
    return report.model_copy(update={"headline": headline(report), "warnings": tuple(warnings(report))})


def totals(traffic: Traffic) -> Totals:
    latency = traffic.latency_ms[traffic.is_answered]
    return Totals(
        first_at=float(traffic.at[0]),
        last_at=float(traffic.at[-1]),
        n=len(traffic),
        n_probes=traffic.left_out.get(PROBE, 0),
        n_malformed=traffic.left_out.get(MALFORMED, 0),
        n_capped=traffic.left_out.get(CAPPED, 0),
        n_routed=int(traffic.is_routed.sum()),
        n_fallback=int(traffic.is_fallback.sum()),
        by_state=dict(Counter(traffic.state.tolist()).most_common()),
        cost_usd=float(traffic.cost_usd.sum()),
        p50_ms=quantile(latency, 0.5),
        p95_ms=quantile(latency, 0.95),
    )


def groups(traffic: Traffic, column: str) -> tuple[Group, ...]:
    """Traffic by category or expert, the largest first."""
    names: Names = getattr(traffic, column)
    return tuple(
        group(name, traffic.rows(names == name), count / len(traffic))
        for name, count in Counter(names.tolist()).most_common()
        if name != NOT_ROUTED
    )


def group(name: str, own: Traffic, share: float) -> Group:
    answered = own.rows(own.is_answered)
    return Group(
        name=name,
        n=len(own),
        n_rated=int(own.is_rated.sum()),
        share=share,
        answered=rate(own.is_answered.astype(np.float64), clusters=own.clusters),
        quality=own.quality,
        cost_usd=float(own.cost_usd.sum()),
        p50_ms=quantile(answered.latency_ms, 0.5),
        p95_ms=quantile(answered.latency_ms, 0.95),
        ttft_p50_ms=quantile(answered.ttft_ms[np.isfinite(answered.ttft_ms)], 0.5),
        tokens=int(own.tokens.sum()),
    )


def cells(routed: Traffic) -> tuple[Cell, ...]:
    """Categories by experts, in order of size."""
    pairs = Counter(zip(routed.category.tolist(), routed.expert.tolist(), strict=True))
    return tuple(
        Cell(
            category=category,
            expert=expert,
            n=count,
            quality=routed.rows((routed.category == category) & (routed.expert == expert)).quality,
        )
        for (category, expert), count in pairs.most_common()
    )


def bucket_seconds(span_s: float) -> float:
    """The shortest usual stretch of time that cuts a span into at most MAX_BUCKETS."""
    return next((step for step in BUCKETS_S if span_s / step < MAX_BUCKETS), BUCKETS_S[-1])


def timeline(traffic: Traffic, step: float) -> tuple[Bucket, ...]:
    numbers = np.floor(traffic.at / step).astype(np.int64)
    found = []
    for number in np.unique(numbers).tolist():
        own = traffic.rows(numbers == number)
        by_expert = dict(Counter(own.expert.tolist()).most_common())
        found.append(Bucket(start=number * step, by_expert=by_expert, quality=own.quality))
    return tuple(found)


def quantile(values: Float64Array, level: float) -> float | None:
    return float(np.quantile(values, level)) if len(values) else None


def prequential(routed: Traffic) -> Prequential | None:
    """Predictions compared with rewards; None without a rated answer whose quality was predicted."""
    known = routed.rows(np.isfinite(routed.reward) & np.isfinite(routed.predicted))
    reward, predicted = known.reward, known.predicted
    accuracy = rate(((reward >= USEFUL) == (predicted >= USEFUL)).astype(np.float64), clusters=known.clusters)
    if accuracy is None:
        return None
    return Prequential(
        n=len(reward),
        accuracy=accuracy,
        error=float(np.abs(reward - predicted).mean()),
        bias=float((reward - predicted).mean()),
    )


def measure_switches(traffic: Traffic) -> tuple[Switch, ...]:
    """One per version after the first, in the order in which they began to serve.

    What is compared is the traffic of a version with that of the one that began before it, under the policy that both
    served most: another mix of policies would look like the work of the router.
    """
    routed = traffic.rows(traffic.is_routed)
    first_at: dict[str, float] = {}
    for at, version in zip(routed.at, routed.version, strict=True):
        first_at.setdefault(version, float(at))
    versions = list(first_at)
    return tuple(switch(routed, one, two, first_at[two]) for one, two in pairwise(versions))


def switch(routed: Traffic, before: str, after: str, at: float) -> Switch:
    old, new = routed.rows(routed.version == before), routed.rows(routed.version == after)
    counts = Counter(old.policy.tolist()), Counter(new.policy.tolist())
    policy = max(sorted(counts[0] | counts[1]), key=lambda name: min(count[name] for count in counts))
    old, new = old.rows(old.policy == policy), new.rows(new.policy == policy)
    was, became = old.quality, new.quality
    return Switch(
        at=at,
        before=before,
        after=after,
        policy=policy,
        n_before=len(old),
        n_after=len(new),
        n_overlap=int((old.at >= at).sum()),
        quality_before=was,
        quality_after=became,
        quality=gap(became, was),
        moved=moves(old, new),
    )


def moves(old: Traffic, new: Traffic) -> tuple[Moved, ...]:
    """Categories whose experts changed, those with the most traffic moved first."""
    found = []
    for category in sorted(set(old.category) | set(new.category)):
        was, became = old.rows(old.category == category), new.rows(new.category == category)
        before, after = expert_shares(was), expert_shares(became)
        change = sum(abs(after.get(name, 0) - before.get(name, 0)) for name in {*before, *after}) / 2
        if change < MIN_MOVE or not len(was) or not len(became):
            continue
        moved = Moved(
            category=category,
            n_before=len(was),
            n_after=len(became),
            before=before,
            after=after,
            quality=gap(became.quality, was.quality),
        )
        found.append((change * len(became), moved))
    found.sort(key=lambda pair: -pair[0])
    return tuple(moved for _, moved in found[:SHOWN_MOVES])


def expert_shares(traffic: Traffic) -> dict[str, float]:
    counts = Counter(np.asarray(traffic.expert).tolist())
    return {name: count / len(traffic) for name, count in counts.most_common()}


def measure_bias(traffic: Traffic) -> Bias:
    """Shares of answers with feedback by group, and the mean reward as given and corrected."""
    answered = traffic.rows(traffic.is_answered & traffic.is_routed)
    is_rated = answered.is_rated.astype(np.float64)
    return Bias(
        rated=rate(is_rated, clusters=answered.clusters),
        groups=tuple(shares(answered)),
        raw=rate(answered.reward, clusters=answered.clusters),
        corrected=rate(answered.reward, response_weights(answered), answered.clusters),
    )


def shares(answered: Traffic) -> Iterator[RatedShare]:
    groups: tuple[tuple[By, Names], ...] = (
        ("expert", answered.expert),
        ("category", answered.category),
        ("latency", latency_quarters(answered.latency_ms)),
    )
    for by, names in groups:
        for name in QUARTERS if by == "latency" else sorted(set(names)):
            own = answered.rows(names == name)
            found = rate(own.is_rated.astype(np.float64), clusters=own.clusters)
            if found is not None:
                yield RatedShare(by=by, name=name, n=len(own), rated=found)


def latency_quarters(latency_ms: Float64Array) -> Names:
    """(n,) name of the quarter that each latency lies in."""
    if len(latency_ms) == 0:
        return np.array([], dtype=object)
    cuts = np.quantile(latency_ms, [0.25, 0.5, 0.75])
    return np.array(QUARTERS, dtype=object)[np.searchsorted(cuts, latency_ms, side="left")]


def response_weights(answered: Traffic) -> Float64Array:
    """(n,) answers that each reply represents, by how often answers of its category and expert get one: the weights
    that a retrain learns by, without what clients did."""
    bins = [ReplyBin(*cell) for cell in zip(answered.category, answered.expert, strict=True)]
    rates, replies = (
        ReplyRates(),
        Counter(own for own, is_rated in zip(bins, answered.is_rated, strict=True) if is_rated),
    )
    for own, answers in Counter(bins).items():
        rates.count(own, answers, replies[own])
    weight_of = {own: rates.weight(own) for own in set(bins)}
    return np.array([weight_of[own] for own in bins], dtype=np.float64)
