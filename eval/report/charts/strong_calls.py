"""Quality against the share of strong calls, with two experts."""

from __future__ import annotations

from typing import Any

from eval.report.charts.style import Spec, score_scale
from eval.report.schema import Report
from eval.report.words import call_label, shown_orders

COLOURS = {"random": "var(--ink-soft)", "oracle": "var(--hindsight)"}
METHOD_COLOURS = ["var(--accent)", "var(--expert)", "var(--violet)"]
LEVELS = (50, 80)


def strong_calls_chart(alt: Any, report: Report) -> Any:
    """None unless there are two experts. The rules are 50% and 80% of the gap between them."""
    found = report.cheap_strong
    if found is None:
        return None
    names = shown_orders(report, found)
    labels = [call_label(report, name) for name in names]
    methods = iter(METHOD_COLOURS)
    colours = [COLOURS[name] if name in COLOURS else next(methods) for name in names]
    rows: list[Spec] = [
        {"order": label, "share": 100 * share, "score": 100 * score}
        for name, label in zip(names, labels, strict=True)
        for share, score in zip(found.orders[name].share, found.orders[name].mean_score, strict=True)
    ]
    gap = found.strong_score - found.weak_score
    rules: list[Spec] = [
        {"score": 100 * (found.weak_score + level / 100 * gap), "share": 100, "text": f"{level}% of the gap"}
        for level in LEVELS
        if gap > 0
    ]
    y = alt.Y("score:Q", title="mean score (%)", scale=score_scale(alt, [row["score"] for row in rows]))
    x = alt.X("share:Q", title="queries sent to the strong expert (%)", scale=alt.Scale(domain=[0, 100]))
    stroke = alt.Legend(symbolType="stroke", symbolStrokeWidth=3)
    colour = alt.Color("order:N", sort=None, scale=alt.Scale(domain=labels, range=colours), legend=stroke)
    tooltip = [alt.Tooltip("order:N"), *(alt.Tooltip(f"{name}:Q", format=".1f") for name in ("share", "score"))]
    lines = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2.5)
    levels = alt.Chart(alt.Data(values=rules))
    marks = levels.mark_rule(strokeDash=[3, 4], color="var(--ink-soft)").encode(y="score:Q")
    texts = levels.mark_text(align="right", dy=-8, dx=-4, fontSize=12, color="var(--ink-soft)")
    named = texts.encode(y="score:Q", x="share:Q", text="text:N")
    return alt.layer(marks, named, lines.encode(x=x, y=y, color=colour, tooltip=tooltip)).properties(height=340)
