"""Where the distance to the best expert for every query was lost."""

from __future__ import annotations

from typing import Any

from eval.report.charts.style import ROW_HEIGHT, Spec, row_axis
from eval.report.schema import Report
from eval.report.words import PART_NAMES, points


def regret_chart(alt: Any, report: Report) -> Any:
    """Points lost in each part, with intervals."""
    rows: list[Spec] = [
        {
            "name": PART_NAMES[name],
            "loss": 100 * part.mean,
            "low": 100 * part.interval[0],
            "high": 100 * part.interval[1],
            "text": points(part.mean).lstrip("+"),
        }
        for name, part in report.regret.parts.items()
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(y=row_axis(alt, rows))
    x = alt.X("loss:Q", title="points lost (negative: won), with 95% interval", scale=alt.Scale(padding=30))
    bars = base.mark_bar(color="var(--accent)", opacity=0.85, height=18).encode(x=x)
    ranges = base.mark_rule(strokeWidth=2, color="var(--ink)").encode(x="low:Q", x2="high:Q")
    labels = base.mark_text(align="left", dx=8, fontSize=13, color="var(--ink)").encode(x="high:Q", text="text:N")
    return (bars + ranges + labels).properties(height=alt.Step(ROW_HEIGHT + 6))
