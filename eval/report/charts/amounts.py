"""Score against size or cost, with the hull of all that can be deployed."""

from __future__ import annotations

from typing import Any, Literal

from eval.report.charts.style import ROLE_COLOURS, ROLE_OF_ARM, ROLES, Spec, label_positions, score_scale
from eval.report.schema import Report

Amount = Literal["mean_active_params_b", "mean_cost_usd"]

MAX_LABELLED = 10
ALONE = "one expert alone"
TITLES = {
    "mean_active_params_b": "mean active parameters per query (billions)",
    "mean_cost_usd": "mean cost per 1,000 queries (USD)",
}
UNITS = {"mean_active_params_b": 1, "mean_cost_usd": 1000}
SHAPES = ["circle", "square", "cross", "triangle-up", "diamond"]


def amount_chart(alt: Any, report: Report, amount: Amount) -> Any:
    """None where fewer than two choices have a known amount, or all have the same."""
    rows = amount_rows(report, amount)
    if len({row["amount"] for row in rows}) < 2:
        return None
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("amount:Q", title=TITLES[amount], scale=alt.Scale(zero=True, nice=True)),
        y=alt.Y("score:Q", title="mean score (%)", scale=score_scale(alt, [row["score"] for row in rows])),
    )
    kinds = [kind for kind in [*ROLES, ALONE] if any(row["role"] == kind for row in rows)]
    colours = dict(zip([*ROLES, ALONE], [*ROLE_COLOURS, "var(--ink)"], strict=True))
    shapes = dict(zip([*ROLES, ALONE], SHAPES, strict=True))
    colour = alt.Color("role:N", scale=alt.Scale(domain=kinds, range=[colours[kind] for kind in kinds]))
    shape = alt.Shape("role:N", scale=alt.Scale(domain=kinds, range=[shapes[kind] for kind in kinds]))
    tooltip = [alt.Tooltip("name:N"), alt.Tooltip("score:Q", format=".1f"), alt.Tooltip("amount:Q", format=".4~g")]
    dots = base.mark_point(filled=True, size=110, opacity=0.9).encode(color=colour, shape=shape, tooltip=tooltip)
    labelled = [row for row in rows if row["label_text"]]
    positions = label_positions([(row["amount"], row["score"]) for row in labelled]) if labelled else []
    for row, position in zip(labelled, positions, strict=True):
        row["label"] = position
    texts = alt.Chart(alt.Data(values=labelled)).mark_text(align="left", dx=10, fontSize=12, color="var(--ink)")
    labels = texts.encode(x="amount:Q", text="label_text:N", y="label:Q")
    layers = [dots, labels]
    if amount == "mean_cost_usd" and len(report.hull) > 1:
        layers.insert(0, hull_line(alt, report))
    return alt.layer(*layers).properties(height=400)


def hull_line(alt: Any, report: Report) -> Any:
    """The non-decreasing convex hull: what coins between all that can be deployed reach."""
    corners: list[Spec] = [{"amount": 1000 * cost, "score": 100 * quality} for cost, quality in report.hull]
    line = alt.Chart(alt.Data(values=corners)).mark_line(strokeDash=[6, 4], strokeWidth=1.5, color="var(--ink-soft)")
    return line.encode(x="amount:Q", y="score:Q")


def amount_rows(report: Report, amount: Amount) -> list[Spec]:
    """Arms that mix experts, methods, and every expert alone. Of the methods only the default is labelled, experts
    only where they are few; the others say their name under the pointer."""
    of_expert = {"mean_active_params_b": "active_params_b", "mean_cost_usd": "mean_cost_usd"}[amount]
    found = [
        (arm.label, ROLE_OF_ARM.get(name, "reference"), arm.mean_score, getattr(arm, amount), True)
        for name, arm in report.arms.items()
        if name not in ("best_single", "cheapest")
    ]
    found += [(m.label, "method", m.mean_score, getattr(m, amount), m.is_default) for m in report.methods.values()]
    is_labelled = len(report.experts) <= MAX_LABELLED
    found += [(row.expert, ALONE, row.mean_score, getattr(row, of_expert), is_labelled) for row in report.experts]
    return [
        {
            "name": name,
            "role": kind,
            "score": 100 * score,
            "amount": UNITS[amount] * value,
            "label_text": name if shown else "",
        }
        for name, kind, score, value, shown in found
        if value is not None
    ]
