"""The three kinds of chart that reports draw, as Vega-Lite specifications: dots, lines and a heat map.

Colours are CSS variables of the page (`var(--...)`): the SVG follows light, dark and print without being drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coe.eval.report.page import Measured, Spec, ends_of

WIDTH = 920
"""Largest width of a chart in pixels, with all labels: the page redraws a chart to fit a narrower window."""
ROW_HEIGHT, CELL, LABELLED_CELL = 40, 26, 40
LABELLED_CELLS = 12
"""Largest number of columns at which the cells of a heat map show their text."""
LEGEND_LINE, LETTER_WIDTH, ROW_NAMES = 40, 7.5, 140
"""Letters of a legend's line, pixels of a letter, and pixels left of a chart, where a legend begins."""
MAX_DOTS = 60
"""Largest number of points per line at which each point is drawn."""
NARROW = "windowSize()[0] < 600"
"""Condition for a phone's window, in Vega's expression language."""
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'
"""Font names of the page's style sheet: Vega measures text with them to leave space for labels."""
INK, SOFT, ACCENT, BELOW = "var(--ink)", "var(--ink-soft)", "var(--accent)", "var(--hindsight)"
COLOURS = [ACCENT, "var(--expert)", BELOW, "var(--violet)", "var(--pink)", SOFT]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
DASHES = [[1, 0], [6, 3], [2, 3], [8, 3, 2, 3], [4, 4], [1, 2]]
"""Dash patterns of groups in their order: no chart separates groups by colour alone."""
CONFIG: Spec = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": "transparent"},
    "axis": {
        "labelColor": INK,
        "titleColor": SOFT,
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
        "labelColor": INK,
        "labelFontSize": 13,
        "orient": "top",
        "title": None,
        "symbolSize": 110,
        "symbolOpacity": 1,
        "labelLimit": 0,
        "columnPadding": 24,
    },
}


def build_chart(
    rows: Sequence[Spec], layers: Sequence[Spec], height: object, width: object = WIDTH, narrow_step: int | None = None
) -> Spec:
    """Build a chart of rows at most `width` pixels wide, or as wide as its columns if `width` is a step. On a phone
    that step is `narrow_step` pixels."""
    data = {"values": list(rows)}
    spec: Spec = {"data": data, "layer": list(layers), "height": height, "width": width, "config": CONFIG}
    if isinstance(width, int):
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    if narrow_step is not None:
        spec["usermeta"] = {"narrow_step": narrow_step}
    return spec


def wrap_label(chars: int) -> str:
    """Return the expression of a label in lines of up to `chars` characters."""
    return f"split(trim(replace(datum.label, /(.{{1,{chars}}})( |$)/g, '$1\\n')), '\\n')"


def by_group(groups: Sequence[str], values: Sequence[object], **legend: object) -> Spec:
    """Return the channel that gives each group one of `values` (colours, shapes or dashes); groups beyond them share
    the last."""
    looks = [values[min(i, len(values) - 1)] for i in range(len(groups))]
    wide = 60 + LETTER_WIDTH * min(max(map(len, groups), default=0), LEGEND_LINE)
    columns = f"max(1, min({len(groups)}, floor((min(windowSize()[0], {WIDTH}) - {ROW_NAMES}) / {wide})))"
    shown: Spec = {"columns": {"expr": columns}, "labelExpr": wrap_label(LEGEND_LINE), **legend}
    scale = {"domain": list(groups), "range": looks}
    return {"field": "group", "type": "nominal", "scale": scale, "legend": shown if len(groups) > 1 else None}


def tooltip(number: str, *names: str) -> list[Spec]:
    """Return the fields that the pointer shows; `name` and `group` are texts, all others numbers of that format."""
    texts = ("name", "group")
    return [
        {"field": name, "type": "nominal"}
        if name in texts
        else {"field": name, "type": "quantitative", "format": number}
        for name in names
    ]


def padded_scale(scores: Sequence[float]) -> Spec:
    """Return a scale from slightly below the lowest to slightly above the highest score."""
    margin = max(0.08 * (max(scores) - min(scores)), 1e-3)
    return {"domain": [min(scores) - margin, max(scores) + margin], "zero": False, "nice": False}


def groups_of(rows: Sequence[Spec]) -> list[str]:
    """Return the groups of rows in order of appearance."""
    return list(dict.fromkeys(row["group"] for row in rows))


def dots(found: Mapping[str, Measured], title: str, number: str, groups: Mapping[str, str]) -> Spec:
    """Draw a dot with its interval for every row, because bars would have to start at zero and hide the gaps.

    Args:
        number: format of figures, in d3's notation.
        groups: name of a row -> group, which has a colour and a shape; the first group has the page's own.
    """
    rows: list[Spec] = []
    for name, one in found.items():
        low, high = ends_of(one) or (one.value, one.value)
        rows.append({"name": name, "group": groups[name], "value": one.value, "low": low, "high": high})
    # On a phone names are in lines of up to 22 characters, which leave room for the dots.
    label = {"labelExpr": f"{NARROW} ? {wrap_label(22)} : datum.label", "labelLineHeight": 13}
    axis = {"grid": False, "ticks": False, "labelPadding": 10, **label}
    y = {"field": "name", "type": "nominal", "sort": list(found), "title": None, "axis": axis}
    scale = padded_scale([row[end] for row in rows for end in ("low", "high")])
    low_end = {"field": "low", "type": "quantitative", "title": title, "scale": scale, "axis": {"format": number}}
    names, value = list(dict.fromkeys(groups.values())), {"field": "value", "type": "quantitative"}
    colour, shape = by_group(names, COLOURS), by_group(names, SHAPES)
    shown = tooltip(number, "name", "group", "value", "low", "high")
    line = {"y": y, "x": low_end, "x2": {"field": "high"}, "color": colour}
    dot = {"y": y, "x": value, "color": colour, "shape": shape, "tooltip": shown}
    layers: list[Spec] = [
        {"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.55}, "encoding": line},
        {"mark": {"type": "point", "filled": True, "size": 110, "opacity": 1}, "encoding": dot},
        {
            "mark": {"type": "text", "dy": -13, "fontSize": 13, "color": INK},
            "encoding": {"y": y, "x": value, "text": {**value, "format": number}},
        },
    ]
    return build_chart(rows, layers, {"step": ROW_HEIGHT})


def lines(
    rows: Sequence[Spec],
    titles: tuple[str | None, str],
    number: str,
    *,
    x: Spec | None = None,
    moments: Mapping[str, float] | None = None,
) -> Spec:
    """Draw a line of `y` over `x` for each `group`; rows with `low` and `high` also draw its band.

    Args:
        x: further properties of the axis `x`.
        moments: text -> place on that axis, marked with a dashed line.
    """
    names = groups_of(rows)
    across = {
        "field": "x",
        "type": "quantitative",
        "title": titles[0],
        "scale": {"zero": False, "nice": True},
        **(x or {}),
    }
    ends = [row[end] for row in rows for end in ("y", "low", "high") if end in row]
    up = {"type": "quantitative", "title": titles[1], "scale": padded_scale(ends), "axis": {"format": number}}
    stroke = {"symbolType": "stroke", "symbolStrokeWidth": 3}
    colour, dash = by_group(names, COLOURS, **stroke), by_group(names, DASHES, **stroke)
    line = {"x": across, "y": {**up, "field": "y"}, "color": colour}
    layers = [*draw_moments(moments or {}, across)]
    if any("low" in row for row in rows):
        band = {**line, "y": {**up, "field": "low"}, "y2": {"field": "high"}}
        layers.append({"mark": {"type": "area", "opacity": 0.12}, "encoding": band})
    layers.append({"mark": {"type": "line", "strokeWidth": 2.5}, "encoding": {**line, "strokeDash": dash}})
    if len(rows) <= MAX_DOTS * len(names):
        point = {**line, "tooltip": tooltip(number, "group", "y", *(end for end in ("low", "high") if end in rows[0]))}
        layers.append({"mark": {"type": "point", "filled": True, "size": 45, "opacity": 1}, "encoding": point})
    return build_chart(rows, layers, 320)


TIME_AXIS: Spec = {
    "type": "temporal",
    "scale": {"type": "utc"},
    "axis": {
        "grid": False,
        "labelOverlap": True,
        "format": "%d %b %H:%M",
        "labelExpr": f"{NARROW} ? {wrap_label(6)} : datum.label",  # on a phone the time is below the day
    },
}
"""Axis of UTC time, in milliseconds. Vega's own labels use a 12-hour clock without am or pm."""


def draw_moments(moments: Mapping[str, float], across: Spec) -> list[Spec]:
    """Draw a dashed line with its text at each place of the axis."""
    if not moments:
        return []
    at = {"x": across}
    source = {"values": [{"x": place, "text": text} for text, place in moments.items()]}
    name = {**at, "text": {"field": "text"}, "y": {"value": -3}}
    return [
        {
            "data": source,
            "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.5, "color": INK},
            "encoding": at,
        },
        {
            "data": source,
            "mark": {"type": "text", "baseline": "bottom", "fontSize": 12, "color": INK},
            "encoding": name,
        },
    ]


def heat_map(
    cells: Mapping[tuple[str, str], float], titles: tuple[str, str], number: str, full: float | None = None
) -> Spec:
    """Draw cells by row and column: the fuller the colour, the further from 0; values below 0 have another colour.

    Args:
        full: the value of the full colour; None uses the cell furthest from 0.
    """
    down, across = (list(dict.fromkeys(pair[i] for pair in cells)) for i in (0, 1))
    most = max([*map(abs, cells.values()), full or 1e-9])
    rows: list[Spec] = [{"name": a, "group": b, "value": value} for (a, b), value in cells.items()]
    axis = {"grid": False, "ticks": False}
    x = {"field": "group", "type": "nominal", "sort": across, "title": titles[1], "axis": {"labelAngle": -45, **axis}}
    y = {"field": "name", "type": "nominal", "sort": down, "title": titles[0], "axis": axis}
    fill = {"condition": {"test": "datum.value < 0", "value": BELOW}, "value": ACCENT}
    scale = {"domain": [0, most], "range": [0.08, 1]}
    depth = {"field": "depth", "type": "quantitative", "scale": scale, "legend": None}
    shown = tooltip(number, "name", "group", "value")
    layers: list[Spec] = [
        {"mark": "rect", "encoding": {"x": x, "y": y, "color": fill, "opacity": depth, "tooltip": shown}}
    ]
    step = CELL
    if len(across) <= LABELLED_CELLS:
        step = LABELLED_CELL
        ink = {"condition": {"test": f"datum.depth > {most / 2}", "value": "var(--paper)"}, "value": INK}
        text = {"field": "value", "type": "quantitative", "format": number}
        mark = {"type": "text", "fontSize": 12}
        layers.append({"mark": mark, "encoding": {"x": x, "y": y, "text": text, "color": ink}})
    deep = [{**row, "depth": abs(row["value"])} for row in rows]
    return build_chart(deep, layers, {"step": CELL}, {"step": step}, step * 3 // 4)
