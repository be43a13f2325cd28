"""The charts of a traffic report as Vega-Lite specifications."""

from __future__ import annotations

from collections import Counter
from typing import Any

from eval.log.schema import Group, LogReport, Rate
from eval.report.charts.style import ROW_HEIGHT, Spec, finished, row_axis, score_scale
from eval.report.words import percent
from router.errors import MissingExtraError

COLOURS = ["var(--accent)", "var(--expert)", "var(--hindsight)", "var(--violet)", "var(--good)", "var(--bad)"]
REST_COLOUR = "var(--ink-soft)"
REST = "others"
SHOWN_CATEGORIES = 24
MINUTE = "utcyearmonthdatehoursminutes"
TIME_LABELS = ((300.0, "%H:%M:%S"), (86_400.0, "%H:%M"), (4 * 86_400.0, "%d %b %H:%M"), (float("inf"), "%d %b %Y"))
"""Length of what is shown, in seconds, up to which times are written so."""


def log_charts(report: LogReport) -> dict[str, Spec]:
    """Specifications by the id of their element; a chart without data is left out. Raises MissingExtraError."""
    try:
        import altair as alt
    except ImportError as error:
        raise MissingExtraError("the report", "eval") from error

    charts = {
        "chart-timeline": timeline_chart(alt, report),
        "chart-quality-time": quality_chart(alt, report),
        "chart-volume": volume_chart(alt, report),
        "chart-categories": rates_chart(alt, report.categories),
        "chart-experts": rates_chart(alt, report.experts),
        "chart-rated": rated_chart(alt, report),
    }
    return {name: finished(chart) for name, chart in charts.items() if chart is not None}


def expert_colours(report: LogReport) -> dict[str, str]:
    """Expert -> colour, the busiest first; those beyond the palette share one."""
    names = [group.name for group in report.experts]
    shown = names if len(names) <= len(COLOURS) else names[: len(COLOURS) - 1]
    colours = dict(zip(shown, COLOURS, strict=False))
    return colours if len(shown) == len(names) else {**colours, REST: REST_COLOUR}


def colour_of_experts(alt: Any, colours: dict[str, str]) -> Any:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color("expert:N", scale=scale, sort=None, legend=alt.Legend(columns=6))


def timeline_chart(alt: Any, report: LogReport) -> Any:
    """Decisions by expert over time, with a line where another router took over."""
    colours = expert_colours(report)
    rows = stacked(report, colours)
    tooltip = [
        moment_tooltip(alt),
        alt.Tooltip("expert:N"),
        alt.Tooltip("decisions:Q"),
    ]
    bars = (
        alt.Chart(alt.Data(values=rows))
        .mark_rect(stroke="var(--paper)", strokeWidth=0.5)
        .encode(
            x=time_axis(alt, report),
            x2="end:T",
            y=alt.Y("low:Q", title="decisions"),
            y2="high:Q",
            color=colour_of_experts(alt, colours),
            tooltip=tooltip,
        )
    )
    return alt.layer(bars, *switch_rules(alt, report)).properties(height=220)


def stacked(report: LogReport, colours: dict[str, str]) -> list[Spec]:
    """A rectangle per expert and stretch of time, each on top of the one before."""
    rows: list[Spec] = []
    for bucket in report.timeline:
        counts: Counter[str] = Counter()
        for expert, n in bucket.by_expert.items():
            counts[expert if expert in colours else REST] += n
        low = 0
        for expert in colours:
            span = {"start": 1000 * bucket.start, "end": 1000 * (bucket.start + report.bucket_s)}
            n = counts[expert]
            if n:
                rows.append({**span, "expert": expert, "decisions": n, "low": low, "high": low + n})
            low += n
    return rows


def time_axis(alt: Any, report: LogReport) -> Any:
    """UTC. Vega's own labels of hours are of a clock of twelve, and do not say which half of the day."""
    span_s = len(report.timeline) * report.bucket_s
    form = next(text for limit_s, text in TIME_LABELS if span_s <= limit_s)
    axis = alt.Axis(grid=False, labelOverlap=True, format=form)
    return alt.X("start:T", title=None, scale=alt.Scale(type="utc"), axis=axis)


def moment_tooltip(alt: Any) -> Any:
    return alt.Tooltip("start:T", timeUnit=MINUTE, format="%d %b %H:%M", title="from")


def switch_rules(alt: Any, report: LogReport) -> list[Any]:
    """A dashed line with the new version's name for each switch."""
    rows: list[Spec] = [{"start": 1000 * switch.at, "version": switch.after[:8]} for switch in report.switches]
    if not rows:
        return []
    base = alt.Chart(alt.Data(values=rows)).encode(x=time_axis(alt, report))
    rule = base.mark_rule(strokeDash=[5, 4], color="var(--ink)", strokeWidth=1.5)
    text = base.mark_text(align="left", baseline="top", dx=5, color="var(--ink)", fontSize=12)
    return [rule, text.encode(text="version:N", y=alt.value(2))]


def quality_chart(alt: Any, report: LogReport) -> Any:
    """Mean reward over time with its interval. None without two stretches that have feedback."""
    rows: list[Spec] = [
        {"start": 1000 * (bucket.start + report.bucket_s / 2), **scaled(bucket.quality)}
        for bucket in report.timeline
        if bucket.quality is not None
    ]
    if len(rows) < 2:
        return None
    scale = score_scale(alt, [row[end] for row in rows for end in ("low", "high")])
    base = alt.Chart(alt.Data(values=rows)).encode(x=time_axis(alt, report))
    band = base.mark_area(opacity=0.15, color="var(--accent)")
    y = alt.Y("low:Q", title="mean reward (%)", scale=scale)
    line = base.mark_line(color="var(--accent)", strokeWidth=2)
    dots = base.mark_point(filled=True, size=40, color="var(--accent)", opacity=1)
    at = alt.Y("score:Q", scale=scale)
    tooltip = [
        moment_tooltip(alt),
        alt.Tooltip("text:N", title="mean"),
        alt.Tooltip("n:Q"),
    ]
    layers = [band.encode(y=y, y2="high:Q"), line.encode(y=at), dots.encode(y=at, tooltip=tooltip)]
    return alt.layer(*layers, *switch_rules(alt, report)).properties(height=200)


def volume_chart(alt: Any, report: LogReport) -> Any:
    """Decisions per category, split by the expert that served. None where nothing was routed."""
    colours = expert_colours(report)
    order = [group.name for group in report.categories[:SHOWN_CATEGORIES]]
    counts: Counter[tuple[str, str]] = Counter()
    for cell in report.cells:
        if cell.category in order:
            counts[cell.category, cell.expert if cell.expert in colours else REST] += cell.n
    if not order:
        return None
    rows: list[Spec] = [
        {"name": category, "expert": expert, "decisions": n} for (category, expert), n in counts.items()
    ]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            y=row_axis(alt, [{"name": name} for name in order]),
            x=alt.X("decisions:Q", title="decisions"),
            color=colour_of_experts(alt, colours),
            tooltip=[alt.Tooltip("name:N", title="category"), alt.Tooltip("expert:N"), alt.Tooltip("decisions:Q")],
        )
        .properties(height=alt.Step(ROW_HEIGHT - 8))
    )


def rates_chart(alt: Any, groups: tuple[Group, ...]) -> Any:
    """Mean reward of each group with its interval; None without feedback."""
    rows: list[Spec] = [
        {"name": f"{group.name} ({group.n_rated})", **scaled(group.quality)}
        for group in groups[:SHOWN_CATEGORIES]
        if group.quality is not None
    ]
    return interval_rows(alt, rows, "mean reward (%), with 95% interval")


def rated_chart(alt: Any, report: LogReport) -> Any:
    """Share of answers with feedback, by group; None where nobody gave any."""
    if report.bias.raw is None:
        return None
    rows: list[Spec] = [
        {"name": f"{group.by}: {group.name}" if group.by != "latency" else group.name, **scaled(group.rated)}
        for group in report.bias.groups[: 2 * SHOWN_CATEGORIES]
    ]
    return interval_rows(alt, rows, "answers with feedback (%), with 95% interval")


def interval_rows(alt: Any, rows: list[Spec], title: str) -> Any:
    if not rows:
        return None
    base = alt.Chart(alt.Data(values=rows)).encode(y=row_axis(alt, rows))
    scale = score_scale(alt, [row[end] for row in rows for end in ("low", "high")])
    bars = base.mark_rule(strokeWidth=3, opacity=0.5, color="var(--accent)")
    dots = base.mark_point(filled=True, size=100, opacity=1, color="var(--accent)")
    tooltip = [alt.Tooltip("name:N"), alt.Tooltip("text:N", title="mean"), alt.Tooltip("n:Q", title="answers")]
    x = alt.X("low:Q", title=title, scale=scale)
    return (bars.encode(x=x, x2="high:Q") + dots.encode(x="score:Q", tooltip=tooltip)).properties(
        height=alt.Step(ROW_HEIGHT - 6)
    )


def scaled(rate: Rate) -> Spec:
    return {
        "score": 100 * rate.value,
        "low": 100 * rate.low,
        "high": 100 * rate.high,
        "text": percent(rate.value),
        "n": round(rate.n),
    }
