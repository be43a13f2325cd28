"""The heat map of experts by collections, and the arms of every collection, as Vega-Lite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.report.charts.style import Spec, finished
from eval.retrieval.schema import RetrievalReport
from router.errors import MissingExtraError

CELL = 26
LOSS_TO_GAIN = ("#b35806", "#f7f7f7", "#2166ac")
SHOWN = ("base", "multitask", "bm25", "pilot", "coe_single", "coe", "collection_oracle", "query_oracle")


def all_charts(report: RetrievalReport) -> dict[str, Spec]:
    """Specifications by element id. Raises MissingExtraError."""
    try:
        import altair as alt
    except ImportError as error:
        raise MissingExtraError("the report", "eval") from error
    return {
        "chart-arms": finished(arms_chart(alt, report)),
        "chart-matrix": finished(matrix_chart(alt, report)),
    }


def matrix_chart(alt: Any, report: RetrievalReport) -> Any:
    """Rows are collections, columns experts; colour is nDCG@10 minus base's on that collection."""
    names = list(report.experts)
    rows: list[Spec] = [
        {
            "collection": name,
            "expert": expert,
            "score": found.experts[expert],
            "gain": found.experts[expert] - found.experts["base"],
        }
        for name, found in report.collections.items()
        for expert in names
    ]
    reach = max(0.05, *(abs(row["gain"]) for row in rows))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("expert:N", sort=names, title="expert", axis=alt.Axis(labelAngle=-45, grid=False, ticks=False)),
        y=alt.Y("collection:N", sort=list(report.collections), title=None, axis=alt.Axis(grid=False, ticks=False)),
    )
    colour = alt.Color(
        "gain:Q",
        title="nDCG@10 minus base",
        scale=alt.Scale(domain=[-reach, 0, reach], range=list(LOSS_TO_GAIN)),
        legend=alt.Legend(orient="top", format="+.2f", tickCount=3),
    )
    tooltip = [
        alt.Tooltip("collection:N"),
        alt.Tooltip("expert:N"),
        alt.Tooltip("score:Q", format=".3f"),
        alt.Tooltip("gain:Q", format="+.3f"),
    ]
    cells = base.mark_rect().encode(color=colour, tooltip=tooltip)
    is_dark = f"abs(datum.gain) > {0.6 * reach}"
    ink = alt.condition(is_dark, alt.value("#fff"), alt.value("#111"))
    texts = base.mark_text(fontSize=9).encode(text=alt.Text("score:Q", format=".2f"), color=ink)
    return alt.layer(cells, texts).properties(height=alt.Step(CELL))


def arms_chart(alt: Any, report: RetrievalReport) -> Any:
    """Mean over collections with intervals."""
    arms = shown_arms(report)
    rows: list[Spec] = [
        {"arm": arm, "score": found.ndcg_at_10, "low": found.interval[0], "high": found.interval[1]}
        for arm, found in report.mean.items()
        if arm in arms
    ]
    low, high = min(row["low"] for row in rows), max(row["high"] for row in rows)
    scale = alt.Scale(domain=[max(0.0, low - 0.02), min(1.0, high + 0.02)])
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("arm:N", sort=list(arms), title=None))
    lines = base.mark_rule(color="var(--ink-soft)", strokeWidth=2).encode(
        x=alt.X("low:Q", scale=scale, title="mean nDCG@10"), x2="high:Q"
    )
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(
        x="score:Q",
        color=alt.condition("datum.arm == 'coe'", alt.value("var(--accent)"), alt.value("var(--ink)")),
        tooltip=[alt.Tooltip("arm:N"), alt.Tooltip("score:Q", format=".3f")],
    )
    return alt.layer(lines, dots).properties(height=alt.Step(CELL))


def shown_arms(report: RetrievalReport) -> Sequence[str]:
    return [arm for arm in SHOWN if arm in report.mean]
