"""The report on traffic, measured on the columns of the log."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

import numpy as np

from coe.eval.log.traffic import NOT_ROUTED, Names, Traffic
from coe.eval.log.traffic_page import headline, warnings
from coe.eval.log.traffic_records import (
    Bias,
    Bucket,
    Cell,
    Group,
    LogReport,
    Totals,
)
from coe.eval.metrics.intervals import rate
from coe.router.types import Float64Array
from coe.training.feedback_bias import ReplyBin, ReplyRates

BUCKETS_S = (60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0)
MAX_BUCKETS = 60


def measure_log(traffic: Traffic, *, command: str, now: datetime, **beside: Any) -> LogReport:
    """Build the report on at least one decision; `beside` are fields that the traffic itself does not contain."""
    step, routed = bucket_seconds(float(traffic.at[-1] - traffic.at[0])), traffic.routed
    report = LogReport(
        headline="",
        warnings=(),
        command=command,
        created_at=now.isoformat(timespec="seconds"),
        totals=totals(traffic),
        categories=groups(routed, routed.category),
        experts=groups(traffic, traffic.expert),
        cells=cells(routed),
        timeline=timeline(traffic, step),
        bucket_s=step,
        bias=measure_bias(traffic.rows(traffic.is_answered & traffic.is_routed)),
        model_changes=traffic.model_changes,
        **beside,
    )
    return report.model_copy(update={"headline": headline(report), "warnings": tuple(warnings(report))})


def totals(traffic: Traffic) -> Totals:
    """Measure the whole of the traffic; latencies are of answered decisions, in milliseconds."""
    latency = traffic.latency_ms[traffic.is_answered]
    return Totals(
        first_at=float(traffic.at[0]),
        last_at=float(traffic.at[-1]),
        n=len(traffic),
        left_out=dict(traffic.left_out),
        n_routed=int(traffic.is_routed.sum()),
        n_fallback=int(traffic.is_fallback.sum()),
        by_state=counts(traffic.state),
        cost_usd=float(traffic.cost_usd.sum()),
        p50_ms=quantile(latency, 0.5),
        p95_ms=quantile(latency, 0.95),
    )


def groups(traffic: Traffic, names: Names) -> tuple[Group, ...]:
    """Measure the decisions of each of the names (n,), the most frequent first."""
    return tuple(group(name, own, len(traffic)) for name, own in traffic.parts(names) if name != NOT_ROUTED)


def group(name: str, own: Traffic, n_all: int) -> Group:
    """Measure the decisions `own` of one name; `n_all` is the number that its share is of."""
    answered = own.rows(own.is_answered)
    return Group(
        name=name,
        n=len(own),
        n_rated=int(own.is_rated.sum()),
        share=len(own) / n_all,
        answered=own.share(own.is_answered),
        quality=own.quality,
        cost_usd=float(own.cost_usd.sum()),
        p50_ms=quantile(answered.latency_ms, 0.5),
        p95_ms=quantile(answered.latency_ms, 0.95),
        ttft_p50_ms=quantile(answered.ttft_ms[np.isfinite(answered.ttft_ms)], 0.5),
        tokens=int(own.tokens.sum()),
    )


def counts(names: Names) -> dict[str, int]:
    """Count decisions by name, the most frequent first."""
    return dict(Counter(names.tolist()).most_common())


def cells(routed: Traffic) -> tuple[Cell, ...]:
    """Count each category's decisions by expert, the largest cell first."""
    found = [
        Cell(category=category, expert=expert, n=len(part), quality=part.quality)
        for category, own in routed.parts(routed.category)
        for expert, part in own.parts(own.expert)
    ]
    return tuple(sorted(found, key=lambda cell: -cell.n))


def bucket_seconds(span_s: float) -> float:
    """Return the shortest step of BUCKETS_S that cuts a span into fewer than MAX_BUCKETS, in seconds; else the
    longest."""
    return next((step for step in BUCKETS_S if span_s / step < MAX_BUCKETS), BUCKETS_S[-1])


def timeline(traffic: Traffic, step: float) -> tuple[Bucket, ...]:
    """Measure the decisions of each period of `step` seconds, in order."""
    numbers = np.floor(traffic.at / step)
    parts = [(number, traffic.rows(numbers == number)) for number in np.unique(numbers).tolist()]
    return tuple(Bucket(start=n * step, by_expert=counts(own.expert), quality=own.quality) for n, own in parts)


def quantile(values: Float64Array, level: float) -> float | None:
    """Return a quantile of values (n,), `level` in [0, 1]; None without any."""
    return float(np.quantile(values, level)) if len(values) else None


def measure_bias(answered: Traffic) -> Bias:
    """Measure the share of answers with feedback, and the mean reward as given and corrected."""
    return Bias(
        rated=answered.share(answered.is_rated),
        raw=answered.quality,
        corrected=rate(answered.reward, response_weights(answered), answered.clusters),
    )


def response_weights(answered: Traffic) -> Float64Array:
    """Return how many answers each reply represents, of shape (n,), by how often answers of its category and expert
    get one. A retrain learns by the same weights, and by what clients did."""
    bins, rates = [ReplyBin(*cell) for cell in zip(answered.category, answered.expert, strict=True)], ReplyRates()
    replies = Counter(own for own, is_rated in zip(bins, answered.is_rated, strict=True) if is_rated)
    for own, answers in Counter(bins).items():
        rates.count(own, answers, replies[own])
    weight_of = {own: rates.weight(own) for own in set(bins)}
    return np.array([weight_of[own] for own in bins], dtype=np.float64)
