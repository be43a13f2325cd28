"""The report on traffic, measured on the columns of the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

import numpy as np

from eval.log.bias import measure_bias
from eval.log.category_regret import measure_regret
from eval.log.disagreement import measure_disagreement
from eval.log.drift import measure_drift
from eval.log.rates import quality, rate
from eval.log.switches import measure_switches
from eval.log.traffic import MALFORMED, NOT_ROUTED, PROBE, Names, Traffic
from eval.log.traffic_records import Bucket, Cell, Group, LogReport, RouterEvent, Totals
from eval.log.traffic_words import headline, warnings
from router.types import Float64Array

BUCKETS_S = (60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0)
MAX_BUCKETS = 60


def measure_log(
    traffic: Traffic,
    *,
    command: str,
    now: datetime,
    events: tuple[RouterEvent, ...] = (),
    left_out: Mapping[str, int] = MappingProxyType({}),
) -> LogReport:
    """The report on at least one decision; `left_out` counts rows that could not be read, by reason."""
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
        drift=measure_drift(traffic),
        bias=measure_bias(traffic),
        switches=measure_switches(traffic),
        disagreement=measure_disagreement(traffic),
        events=events,
        model_changes=traffic.model_changes,
        left_out=dict(left_out),
    )
    return report.model_copy(update={"headline": headline(report), "warnings": warnings(report)})


def totals(traffic: Traffic) -> Totals:
    latency = traffic.latency_ms[traffic.is_answered]
    return Totals(
        first_at=float(traffic.at[0]),
        last_at=float(traffic.at[-1]),
        n=len(traffic),
        n_probes=traffic.left_out.get(PROBE, 0),
        n_malformed=traffic.left_out.get(MALFORMED, 0),
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
        quality=quality(own),
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
            quality=quality(routed.rows((routed.category == category) & (routed.expert == expert))),
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
        found.append(Bucket(start=number * step, by_expert=by_expert, quality=quality(own)))
    return tuple(found)


def quantile(values: Float64Array, level: float) -> float | None:
    return float(np.quantile(values, level)) if len(values) else None
