"""True against most likely categories."""

from __future__ import annotations

from typing import Any

from eval.report.charts.style import Spec
from eval.report.schema import Report

CELL = 26
LABELLED = 12
"""Up to so many categories the cells hold their counts."""


def confusion_chart(alt: Any, report: Report) -> Any:
    """Rows are true categories; the darker a cell, the larger its share of the row. None with one category."""
    found = report.confusion
    if found is None or len(found.categories) < 2:
        return None
    names = list(found.categories)
    rows: list[Spec] = [
        {"true": names[i], "likely": names[j], "queries": count, "share": count / max(sum(line), 1)}
        for i, line in enumerate(found.counts)
        for j, count in enumerate(line)
        if count
    ]
    x = alt.X(
        "likely:N",
        sort=names,
        title="most likely category",
        scale=alt.Scale(domain=names),
        axis=alt.Axis(labelAngle=-45, orient="bottom", grid=False, ticks=False),
    )
    y = alt.Y(
        "true:N",
        sort=names,
        title="true category",
        scale=alt.Scale(domain=names),
        axis=alt.Axis(grid=False, ticks=False),
    )
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y)
    tooltip = [alt.Tooltip("true:N"), alt.Tooltip("likely:N"), alt.Tooltip("queries:Q")]
    opacity = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.08, 1]), legend=None)
    cells = base.mark_rect(color="var(--accent)").encode(
        opacity=opacity, tooltip=[*tooltip, alt.Tooltip("share:Q", format=".0%")]
    )
    if len(names) > LABELLED:
        return cells.properties(height=alt.Step(CELL - 6))
    ink = alt.condition("datum.share > 0.5", alt.value("var(--paper)"), alt.value("var(--ink)"))
    texts = base.mark_text(fontSize=12).encode(text="queries:Q", color=ink)
    return alt.layer(cells, texts).properties(height=alt.Step(CELL))
