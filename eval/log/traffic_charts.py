"""The charts of a traffic report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from eval.log.traffic_records import LogReport
from eval.metrics.intervals import Rate
from eval.report import charts
from eval.report.charts import ACCENT, EXPERT, HINDSIGHT, INK, ROW_HEIGHT, SOFT, VIOLET, Look
from eval.report.numbers import percent
from eval.report.page import Chart, Spec

LOOKS = tuple(Look(colour) for colour in (ACCENT, EXPERT, HINDSIGHT, VIOLET, "var(--pink)", INK))
REST = "others"
SHOWN_CATEGORIES = 24
TIME_LABELS = ((300.0, "%H:%M:%S"), (86_400.0, "%H:%M"), (4 * 86_400.0, "%d %b %H:%M"), (float("inf"), "%d %b %Y"))
"""Length of what is shown, in seconds, up to which times are written so."""


def expert_looks(report: LogReport) -> dict[str, Look]:
    """Expert -> colour, the busiest first; those beyond the palette share one."""
    names = [group.name for group in report.experts]
    if len(names) <= len(LOOKS):
        return dict(zip(names, LOOKS, strict=False))
    return {**dict(zip(names, LOOKS[:-1], strict=False)), REST: Look(SOFT)}


def time_axis(report: LogReport) -> Any:
    """UTC. Vega's own labels use a 12-hour clock without am or pm."""
    span_s = len(report.timeline) * report.bucket_s
    form = next(text for limit_s, text in TIME_LABELS if span_s <= limit_s)
    alt = charts.altair()
    label = f"{charts.NARROW} ? {charts.wrapped(6)} : datum.label"  # on a phone the time is below the day
    axis = alt.Axis(grid=False, labelOverlap=True, format=form, labelExpr=label)
    return alt.X("start:T", title=None, scale=alt.Scale(type="utc"), axis=axis)


def timeline_chart(report: LogReport) -> Spec:
    """Decisions by expert over time, with a line where another router took over."""
    alt = charts.altair()
    looks = expert_looks(report)
    rows: list[Spec] = []
    for bucket in report.timeline:
        counts: Counter[str] = Counter()
        for expert, n in bucket.by_expert.items():
            counts[expert if expert in looks else REST] += n
        low = 0
        for expert in looks:
            n = counts[expert]
            if n:
                span = {"start": 1000 * bucket.start, "end": 1000 * (bucket.start + report.bucket_s)}
                rows.append({**span, "group": expert, "decisions": n, "low": low, "high": low + n})
            low += n
    bars = charts.data(rows).mark_rect(stroke="var(--paper)", strokeWidth=0.5)
    stacked = bars.encode(
        x=time_axis(report),
        x2="end:T",
        y=alt.Y("low:Q", title="decisions"),
        y2="high:Q",
        color=charts.group_colour(looks),
        tooltip=charts.tooltips(from_UTC="start:T|%d %b %H:%M", expert="group:N", decisions="decisions:Q"),
    )
    return charts.finished(alt.layer(stacked, *switch_rules(report)).properties(height=220))


def switch_rules(report: LogReport) -> list[Any]:
    """A dashed line with the new version's name for each switch."""
    rows: list[Spec] = [{"start": 1000 * switch.at, "version": switch.after[:8]} for switch in report.switches]
    if not rows:
        return []
    base = charts.data(rows).encode(x=time_axis(report))
    rule = base.mark_rule(strokeDash=[5, 4], color=INK, strokeWidth=1.5)
    text = base.mark_text(baseline="bottom", color=INK, fontSize=12)
    return [rule, text.encode(text="version:N", y=charts.altair().value(-3))]


def quality_chart(report: LogReport) -> Chart | None:
    """Mean reward over time with its interval. None without two stretches that have feedback."""
    rows: list[Spec] = [
        {"group": "", "start": 1000 * (bucket.start + report.bucket_s / 2), **scaled(bucket.quality)}
        for bucket in report.timeline
        if bucket.quality is not None
    ]
    if len(rows) < 2:
        return None
    caption = "Mean reward of the rated answers, by the time of the request. The band is the 95% interval."
    rules = switch_rules(report)
    spec = charts.curves(rows, time_axis(report), charts.ONE_GROUP, title="mean reward (%)", band=rows, behind=rules)
    return Chart("chart-quality-time", spec, caption)


def volume_chart(report: LogReport) -> Chart | None:
    """Decisions per category, split by the expert that served. None where nothing was routed."""
    looks = expert_looks(report)
    order = [group.name for group in report.categories[:SHOWN_CATEGORIES]]
    if not order:
        return None
    counts: Counter[tuple[str, str]] = Counter()
    for cell in report.cells:
        counts[cell.category, cell.expert if cell.expert in looks else REST] += cell.n
    rows: list[Spec] = [
        {"name": name, "group": expert, "decisions": counts[name, expert]}
        for name in order
        for expert in looks
        if counts[name, expert]
    ]
    alt = charts.altair()
    bars = (
        charts.data(rows)
        .mark_bar()
        .encode(
            y=charts.row_axis(rows),
            x=alt.X("decisions:Q", title="decisions"),
            color=charts.group_colour(looks),
            tooltip=charts.tooltips(category="name:N", expert="group:N", decisions="decisions:Q"),
        )
    )
    caption = "Decisions of each category, split by the expert that served them; the largest categories."
    return Chart("chart-volume", charts.finished(bars.properties(height=alt.Step(ROW_HEIGHT - 8))), caption)


def rates_chart(id: str, rates: Sequence[tuple[str, Rate | None]], title: str, caption: str) -> Chart | None:
    """A rate per row with its interval; None where none is known."""
    rows: list[Spec] = [{"name": name, "group": "", **scaled(rate)} for name, rate in rates if rate is not None]
    return Chart(id, charts.dot_rows(rows, title), caption) if rows else None


def scaled(rate: Rate) -> Spec:
    percents = {"score": rate.value, "low": rate.low, "high": rate.high}
    scores: Spec = {name: 100 * value for name, value in percents.items()}
    return {**scores, "text": percent(rate.value), "n": round(rate.n)}
