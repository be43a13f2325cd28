"""Quality against a budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from eval.metrics.isotonic import never_falling
from eval.report.charts.style import Spec, score_scale
from eval.report.schema import FrontierPoint, Report
from eval.report.words import BUDGET_AXES, curve_label, draws_curves, shown_curves

OWN = "var(--accent)"
COLOURS = {"map": "var(--expert)", "map_drawn": "var(--violet)", "best_mixture": "var(--ink-soft)"}
DASHES = {"map_drawn": [6, 3], "best_mixture": [2, 3]}


def rising(points: Sequence[FrontierPoint]) -> Iterator[tuple[FrontierPoint, float, float, float]]:
    """Points in order of the amount that they used, with their score and the ends of its interval as they are drawn."""
    ordered = sorted(points, key=lambda point: point.amount)
    measured = ([p.mean_score for p in ordered], [p.interval[0] for p in ordered], [p.interval[1] for p in ordered])
    return zip(ordered, *(never_falling(values) for values in measured), strict=True)


def frontier_chart(alt: Any, report: Report, budget: str) -> Any:
    """Lines of test quality against the amount used; None where the budget has no frontier, or where there are too few
    test queries to draw it. A larger budget can be left unspent, so a line never falls: it is the closest such line to
    the measured points. The band is the interval of the first curve, likewise."""
    curves = report.frontier.get(budget)
    if not curves or not draws_curves(report):
        return None
    axis = BUDGET_AXES[budget]
    names = shown_curves(report, curves)
    labels = [curve_label(report, name) for name in names]
    rows: list[Spec] = [
        {
            "curve": label,
            "budget": axis.unit * point.budget,
            "amount": axis.unit * point.amount,
            "score": 100 * score,
            "low": 100 * low,
            "high": 100 * high,
        }
        for name, label in zip(names, labels, strict=True)
        for point, score, low, high in rising(curves[name])
    ]
    scale = score_scale(alt, [row["score"] for row in rows])
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("amount:Q", title=axis.title, scale=alt.Scale(zero=False, nice=True)),
        y=alt.Y("score:Q", title="mean score (%)", scale=scale),
    )
    stroke = alt.Legend(symbolType="stroke", symbolStrokeWidth=3)
    colours, dashes = [COLOURS.get(name, OWN) for name in names], [DASHES.get(name, [1, 0]) for name in names]
    colour = alt.Color("curve:N", sort=None, scale=alt.Scale(domain=labels, range=colours), legend=stroke)
    dash = alt.StrokeDash("curve:N", sort=None, scale=alt.Scale(domain=labels, range=dashes), legend=stroke)
    # Nothing lies between two sets of hosted experts, but a coin between two active ones does.
    shape = "step-after" if budget == "hosted_params_b" else "linear"
    first = [row for row in rows if row["curve"] == labels[0]]
    band = alt.Chart(alt.Data(values=first)).mark_area(opacity=0.12, color=colours[0], clip=True, interpolate=shape)
    shade = band.encode(x="amount:Q", y=alt.Y("low:Q", scale=scale), y2="high:Q")
    lines = base.mark_line(strokeWidth=2.5, interpolate=shape).encode(color=colour, strokeDash=dash)
    tooltip = [alt.Tooltip("curve:N"), *(alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("budget", "amount"))]
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(
        color=colour, tooltip=[*tooltip, alt.Tooltip("score:Q", format=".1f")]
    )
    return alt.layer(shade, lines, dots).properties(height=340)
