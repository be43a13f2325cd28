"""The charts of report.html as Vega-Lite specifications, made with Altair.

Colours are CSS variables of the page (`var(--...)`): the SVG follows light, dark and print without being drawn again.
"""

from __future__ import annotations

from typing import Any

from eval.report.schema import Report
from eval.report.words import PART_NAMES, percent, points
from router.errors import MissingExtraError

Spec = dict[str, Any]

WIDTH = 680
ROW_HEIGHT = 30
TOOLTIP = {"name": "arm", "how": "how", "text": "score"}
MAX_CATEGORIES = 24
MAX_LABELLED_EXPERTS = 10
ROLE_OF_ARM = {"coe": "this router", "category_oracle": "hindsight", "query_oracle": "hindsight"}
ROLES = ["this router", "reference", "hindsight"]
ROLE_COLOURS = ["var(--accent)", "var(--ink-soft)", "var(--hindsight)"]
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'
"""The page's own, by name: Vega measures text with it to leave room for labels."""
CONFIG: Spec = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": "transparent"},
    "axis": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink-soft)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 13,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "labelLimit": 0,
        "titlePadding": 10,
        "tickCount": 8,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink-soft)",
        "labelFontSize": 13,
        "orient": "top",
        "title": None,
        "symbolSize": 110,
        "symbolOpacity": 1,
        "labelLimit": 300,
        "columnPadding": 24,
    },
}


def all_charts(report: Report) -> dict[str, Spec]:
    """Specifications by the id of the element that they are drawn into; a chart without data is left out.

    Raises:
        MissingExtraError: Altair is not installed.
    """
    try:
        import altair as alt
    except ImportError as error:
        raise MissingExtraError("the report", "eval") from error

    charts = {
        "chart-arms": arms_chart(alt, report),
        "chart-regret": regret_chart(alt, report),
        "chart-categories": categories_chart(alt, report),
        "chart-size": amount_chart(alt, report, "mean_active_params_b", "mean active parameters per query (billions)"),
        "chart-cost": amount_chart(alt, report, "mean_cost_usd", "mean cost per 1,000 queries (USD)"),
    }
    return {name: finished(chart) for name, chart in charts.items() if chart is not None}


def finished(chart: Any) -> Spec:
    spec: Spec = chart.properties(width=WIDTH).configure(**CONFIG).to_dict()
    spec.pop("$schema", None)  # a URL, and nothing here may look like a download
    return spec


def role(alt: Any, *, legend: bool = True) -> Any:
    scale = alt.Scale(domain=ROLES, range=ROLE_COLOURS)
    return alt.Color("role:N", scale=scale, legend=alt.Legend() if legend else None)


def score_scale(alt: Any, scores: list[float]) -> Any:
    """From a little below the lowest to a little above the highest score, within 0 to 100."""
    margin = max(0.08 * (max(scores) - min(scores)), 0.5)
    return alt.Scale(domain=[max(0.0, min(scores) - margin), min(100.0, max(scores) + margin)], zero=False, nice=False)


def row_axis(alt: Any, rows: list[Spec]) -> Any:
    """Rows in the order given; their names are never cut."""
    return alt.Y("name:N", sort=[row["name"] for row in rows], title=None, axis=alt.Axis(grid=False, ticks=False))


def arms_chart(alt: Any, report: Report) -> Any:
    """Mean score of each arm with its interval. Dots, because bars would have to start at zero and hide the gaps."""
    rows: list[Spec] = [
        {
            "name": arm.label,
            "role": ROLE_OF_ARM.get(name, "reference"),
            "score": 100 * arm.mean_score,
            "low": 100 * arm.interval[0],
            "high": 100 * arm.interval[1],
            "text": percent(arm.mean_score),
            "how": arm.how,
        }
        for name, arm in sorted(report.arms.items(), key=lambda item: -item[1].mean_score)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(y=row_axis(alt, rows))
    ends = [row[end] for row in rows for end in ("low", "high")]
    x = alt.X("low:Q", title="mean score (%), with 95% interval", scale=score_scale(alt, ends))
    tooltip = [alt.Tooltip(f"{field}:N", title=title) for field, title in TOOLTIP.items()]
    bars = base.mark_rule(strokeWidth=3, opacity=0.55).encode(x=x, x2="high:Q", color=role(alt))
    dots = base.mark_point(filled=True, size=130, opacity=1).encode(x="score:Q", color=role(alt), tooltip=tooltip)
    labels = base.mark_text(dy=-13, fontSize=13, color="var(--ink)").encode(x="score:Q", text="text:N")
    return (bars + dots + labels).properties(height=alt.Step(ROW_HEIGHT + 12))


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


def categories_chart(alt: Any, report: Report) -> Any:
    """Per true category: the best single expert, this router and the category oracle; the largest categories only."""
    named = {"coe": ROLES[0], "best_single": report.arms["best_single"].label, "category_oracle": "Category oracle"}
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
    scale = alt.Scale(domain=list(named.values()), range=ROLE_COLOURS)
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


def amount_chart(alt: Any, report: Report, amount: str, title: str) -> Any:
    """Score against size or cost; None where fewer than two arms have a known amount, or all have the same."""
    unit = 1000 if amount == "mean_cost_usd" else 1
    rows: list[Spec] = [
        {"name": label, "role": kind, "score": 100 * score, "amount": unit * value}
        for label, kind, score, value in amount_points(report, amount)
        if value is not None
    ]
    if len({row["amount"] for row in rows}) < 2:
        return None
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("amount:Q", title=title, scale=alt.Scale(zero=True, nice=True)),
        y=alt.Y("score:Q", title="mean score (%)", scale=score_scale(alt, [row["score"] for row in rows])),
    )
    kinds = [*ROLES, "one expert alone"]
    colour = alt.Color("role:N", scale=alt.Scale(domain=kinds, range=[*ROLE_COLOURS, "var(--expert)"]))
    shape = alt.Shape("role:N", scale=alt.Scale(domain=kinds, range=["circle", "square", "triangle-up", "diamond"]))
    tooltip = [alt.Tooltip("name:N"), alt.Tooltip("score:Q", format=".1f"), alt.Tooltip("amount:Q", format=".4~g")]
    dots = base.mark_point(filled=True, size=110, opacity=0.9).encode(color=colour, shape=shape, tooltip=tooltip)
    for row, position in zip(rows, label_positions([(row["amount"], row["score"]) for row in rows]), strict=True):
        row["label"] = position
    labels = base.mark_text(align="left", dx=10, fontSize=12, color="var(--ink)").encode(text="name:N", y="label:Q")
    return (dots + labels).properties(height=400)


def label_positions(dots: list[tuple[float, float]]) -> list[float]:
    """Heights of the labels beside dots (x, y): each as near its dot as it can be without lying on a label above it."""
    wide = 0.4 * max(max(x for x, _ in dots), 1e-9)  # about as far as a label reaches on an axis from zero
    high = 0.04 * max(max(y for _, y in dots) - min(y for _, y in dots), 1.0)  # a line of text
    placed: list[tuple[float, float]] = []
    heights = [0.0] * len(dots)
    for i in sorted(range(len(dots)), key=lambda i: (-dots[i][1], dots[i][0])):
        x, height = dots[i]
        for other_x, other in sorted(placed, key=lambda label: -label[1]):
            if abs(other_x - x) < wide and other - height < high and height - other < high:
                height = other - high
        placed.append((x, height))
        heights[i] = height
    return heights


def amount_points(report: Report, amount: str) -> list[tuple[str, str, float, float | None]]:
    """Label, role, score and amount of the arms that mix experts, and of every expert alone."""
    mixed = [
        (arm.label, ROLE_OF_ARM.get(name, "reference"), arm.mean_score, getattr(arm, amount))
        for name, arm in report.arms.items()
        if name not in ("best_single", "cheapest")
    ]
    of_expert = {"mean_active_params_b": "active_params_b", "mean_cost_usd": "mean_cost_usd"}[amount]
    is_labelled = len(report.experts) <= MAX_LABELLED_EXPERTS
    alone = [
        (row.expert if is_labelled else "", "one expert alone", row.mean_score, getattr(row, of_expert))
        for row in report.experts
    ]
    return mixed + alone
