"""Scores per true category."""

from __future__ import annotations

from typing import Any

from eval.report.charts.style import ROW_HEIGHT, Spec, row_axis, score_scale
from eval.report.schema import Report

MAX_CATEGORIES = 24
COLOURS = ["var(--accent)", "var(--ink-soft)", "var(--hindsight)"]


def categories_chart(alt: Any, report: Report) -> Any:
    """Per true category: the best single expert, this router and the category oracle; the largest categories only."""
    named = {
        "coe": "this router",
        "best_single": report.arms["best_single"].label,
        "category_oracle": "Category oracle",
    }
    shown = report.categories[:MAX_CATEGORIES]
    rows: list[Spec] = [
        {"name": f"{row.category} ({row.n_test})", "role": label, "score": 100 * row.scores[arm]}
        for row in shown
        for arm, label in named.items()
    ]
    links: list[Spec] = [
        {
            "name": f"{row.category} ({row.n_test})",
            "low": 100 * min(row.scores[arm] for arm in named),
            "high": 100 * max(row.scores[arm] for arm in named),
        }
        for row in shown
    ]
    order = row_axis(alt, links)
    scale = alt.Scale(domain=list(named.values()), range=COLOURS)
    shapes = alt.Scale(domain=list(named.values()), range=["circle", "diamond", "triangle-up"])
    ends = [row[end] for row in links for end in ("low", "high")]
    x = alt.X("low:Q", title="mean score (%)", scale=score_scale(alt, ends))
    spans = alt.Chart(alt.Data(values=links)).mark_rule(color="var(--line)", strokeWidth=5)
    lines = spans.encode(y=order, x=x, x2="high:Q")
    dots = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=90, opacity=0.9)
        .encode(
            y=order,
            x="score:Q",
            color=alt.Color("role:N", scale=scale, sort=None),
            shape=alt.Shape("role:N", scale=shapes, sort=None),
            tooltip=[alt.Tooltip("name:N"), alt.Tooltip("role:N"), alt.Tooltip("score:Q", format=".1f")],
        )
    )
    return (lines + dots).properties(height=alt.Step(ROW_HEIGHT - 6))
