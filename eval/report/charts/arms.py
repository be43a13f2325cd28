"""Mean score of every arm and method."""

from __future__ import annotations

from typing import Any

from eval.report.charts.style import ROLE_OF_ARM, ROW_HEIGHT, Spec, role, row_axis, score_scale
from eval.report.schema import Arm, Report
from eval.report.words import percent

TOOLTIP = {"name": "arm", "how": "how", "text": "score"}


def arms_chart(alt: Any, report: Report) -> Any:
    """Mean score with its interval. Dots, because bars would have to start at zero and hide the gaps."""
    rows = [arm_row(arm, ROLE_OF_ARM.get(name, "reference")) for name, arm in report.arms.items()]
    rows += [arm_row(method, "method") for method in report.methods.values()]
    rows.sort(key=lambda row: -float(row["score"]))
    base = alt.Chart(alt.Data(values=rows)).encode(y=row_axis(alt, rows))
    ends = [row[end] for row in rows for end in ("low", "high")]
    x = alt.X("low:Q", title="mean score (%), with 95% interval", scale=score_scale(alt, ends))
    tooltip = [alt.Tooltip(f"{field}:N", title=title) for field, title in TOOLTIP.items()]
    colour = role(alt, [row["role"] for row in rows])
    bars = base.mark_rule(strokeWidth=3, opacity=0.55).encode(x=x, x2="high:Q", color=colour)
    dots = base.mark_point(filled=True, size=130, opacity=1).encode(x="score:Q", color=colour, tooltip=tooltip)
    labels = base.mark_text(dy=-13, fontSize=13, color="var(--ink)").encode(x="score:Q", text="text:N")
    return (bars + dots + labels).properties(height=alt.Step(ROW_HEIGHT + 10))


def arm_row(arm: Arm, kind: str) -> Spec:
    return {
        "name": arm.label,
        "role": kind,
        "score": 100 * arm.mean_score,
        "low": 100 * arm.interval[0],
        "high": 100 * arm.interval[1],
        "text": percent(arm.mean_score),
        "how": arm.how,
    }
