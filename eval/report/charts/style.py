"""What all charts share: sizes, colours, scales, rows and labels that do not lie on each other.

Colours are CSS variables of the page (`var(--...)`): the SVG follows light, dark and print without being drawn again.
"""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]

WIDTH = 680
ROW_HEIGHT = 30
ROLES = ["this router", "method", "reference", "hindsight"]
ROLE_COLOURS = ["var(--accent)", "var(--expert)", "var(--ink-soft)", "var(--hindsight)"]
ROLE_OF_ARM = {"coe": "this router", "category_oracle": "hindsight", "query_oracle": "hindsight"}
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


def finished(chart: Any, width: int = WIDTH) -> Spec:
    """The specification of a chart, `width` pixels wide."""
    spec: Spec = chart.properties(width=width).configure(**CONFIG).to_dict()
    spec.pop("$schema", None)  # a URL, and nothing here may look like a download
    return spec


def role(alt: Any, shown: list[str]) -> Any:
    """Colours of the roles that are `shown`, with a legend."""
    kept = [name for name in ROLES if name in shown]
    colours = [ROLE_COLOURS[ROLES.index(name)] for name in kept]
    return alt.Color("role:N", scale=alt.Scale(domain=kept, range=colours), legend=alt.Legend())


def score_scale(alt: Any, scores: list[float]) -> Any:
    """From a little below the lowest to a little above the highest score, within 0 to 100."""
    margin = max(0.08 * (max(scores) - min(scores)), 0.5)
    return alt.Scale(domain=[max(0.0, min(scores) - margin), min(100.0, max(scores) + margin)], zero=False, nice=False)


def row_axis(alt: Any, rows: list[Spec]) -> Any:
    """Rows in the order given; their names are never cut."""
    return alt.Y("name:N", sort=[row["name"] for row in rows], title=None, axis=alt.Axis(grid=False, ticks=False))


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
