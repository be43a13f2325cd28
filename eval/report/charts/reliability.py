"""Predicted against observed shares."""

from __future__ import annotations

from typing import Any

from eval.report.charts.style import Spec
from eval.report.schema import Report
from eval.report.words import CATEGORY_CURVE, leading_method

COLOURS = ["var(--accent)", "var(--expert)"]


def reliability_chart(alt: Any, report: Report) -> Any:
    """Bins of the confidence in the category and of the leading method's predicted score; dots on the diagonal keep
    their promise, and their area is the number of queries. None without predictions."""
    lead = leading_method(report)
    series = {CATEGORY_CURVE: report.calibration.get("category")}
    if lead is not None:
        series[f"score predicted by {report.methods[lead].label}"] = report.calibration.get(lead)
    known = {label: found for label, found in series.items() if found is not None and found.points}
    if not known:
        return None
    rows: list[Spec] = [
        {"series": label, "predicted": 100 * p.predicted, "observed": 100 * p.observed, "queries": p.count}
        for label, found in known.items()
        for p in found.points
    ]
    scale = alt.Scale(domain=[0, 100])
    ends = alt.Data(values=[{"predicted": 0, "observed": 0}, {"predicted": 100, "observed": 100}])
    diagonal = alt.Chart(ends).mark_line(strokeDash=[4, 4], color="var(--ink-soft)", strokeWidth=1.5)
    ticks = alt.Axis(values=list(range(0, 101, 20)))
    x = alt.X("predicted:Q", title="predicted (%)", scale=scale, axis=ticks)
    y = alt.Y("observed:Q", title="came true (%)", scale=scale, axis=ticks)
    colour = alt.Color("series:N", sort=None, scale=alt.Scale(domain=list(known), range=COLOURS[: len(known)]))
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y, color=colour)
    lines = base.mark_line(strokeWidth=1.5, opacity=0.35)
    size = alt.Size("queries:Q", scale=alt.Scale(range=[25, 350]), legend=None)
    tooltip = [alt.Tooltip("series:N"), *(alt.Tooltip(f"{n}:Q", format=".1f") for n in ("predicted", "observed"))]
    dots = base.mark_point(filled=True, opacity=0.85).encode(size=size, tooltip=[*tooltip, alt.Tooltip("queries:Q")])
    return alt.layer(diagonal.encode(x=x, y=y), lines, dots).properties(height=400)
