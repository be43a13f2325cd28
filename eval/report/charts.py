"""The forms of charts that reports share, as Vega-Lite specifications made with Altair.

Colours are CSS variables of the page (`var(--...)`): the SVG follows light, dark and print without being drawn again.
Rows are dicts, as Vega-Lite reads them; scores in them are percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.page import Spec

WIDTH, SQUARE = 920, 500
"""Pixels with all labels, at most: the page draws a chart again as narrow as the window. The square is for charts whose
two axes are the same."""
ROW_HEIGHT = 30
CELL, LABELLED_CELL = 20, 40
LABELLED_CELLS = 12
"""Up to so many columns the cells of a heat map hold their text."""
NARROW = "windowSize()[0] < 600"
"""True on a phone, in Vega's expressions."""
LEGEND_LINE, LETTER_WIDTH, ROW_NAMES = 40, 7.5, 140
"""Letters of a line of a legend, pixels of a letter, and pixels left of a chart, where a legend begins."""
MAX_DOTS = 60
"""Up to so many points a curve shows each of them."""
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
        "labelLimit": 0,
        "columnPadding": 24,
    },
}


@dataclass(frozen=True)
class Look:
    """Colour, shape and dash of one group of marks."""

    colour: str
    shape: str = "circle"
    dash: tuple[int, int] = (1, 0)


ACCENT, EXPERT, VIOLET, SOFT, HINDSIGHT, INK = (
    f"var(--{name})" for name in ("accent", "expert", "violet", "ink-soft", "hindsight", "ink")
)
ONE_GROUP = {"": Look(ACCENT)}


def altair() -> Any:
    """The library, when a chart is drawn."""
    import altair as alt
    from altair.utils.schemapi import disable_debug_mode

    disable_debug_mode()  # to check each part against Vega-Lite's schema takes most of a report's time: tests do
    return alt


def finished(chart: Any, width: Any = WIDTH, narrow_step: int | None = None) -> Spec:
    """The specification of a chart, at most `width` pixels wide, or as wide as its columns where that is a step (on a
    phone one of `narrow_step` pixels)."""
    spec: Spec = chart.properties(width=width).configure(**CONFIG).to_dict(validate=False)
    if isinstance(width, int):
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    if narrow_step is not None:
        spec["usermeta"] = {"narrow_step": narrow_step}
    spec.pop("$schema", None)  # a URL, and nothing here may look like a download
    return spec


def wrapped(chars: int) -> str:
    """The expression of a label in lines of up to so many characters."""
    return f"split(trim(replace(datum.label, /(.{{1,{chars}}})( |$)/g, '$1\\n')), '\\n')"


def data(rows: Sequence[Spec]) -> Any:
    alt = altair()
    return alt.Chart(alt.Data(values=list(rows)))


def score_scale(scores: Sequence[float], most: float = 100.0) -> Any:
    """From a little below the lowest to a little above the highest score, within 0 to `most`."""
    margin = max(0.08 * (max(scores) - min(scores)), 0.005 * most)
    ends = [max(0.0, min(scores) - margin), min(most, max(scores) + margin)]
    return altair().Scale(domain=ends, zero=False, nice=False)


def ends_of(rows: Sequence[Spec]) -> list[float]:
    return [row[end] for row in rows for end in ("low", "high")]


def row_axis(rows: Sequence[Spec], **axis: Any) -> Any:
    """Rows in the order given; their names are never cut."""
    alt = altair()
    names = list(dict.fromkeys(row["name"] for row in rows))
    return alt.Y("name:N", sort=names, title=None, axis=alt.Axis(grid=False, ticks=False, labelPadding=10, **axis))


def legend_of(looks: Mapping[str, Look], **options: Any) -> Any:
    """A legend of as many columns as there is room for, names in lines of up to 40 characters; None for one group."""
    if len(looks) < 2:
        return None
    alt = altair()
    wide = 60 + LETTER_WIDTH * min(max(map(len, looks)), LEGEND_LINE)
    room = f"(min(windowSize()[0], {WIDTH}) - {ROW_NAMES})"
    columns = alt.ExprRef(f"max(1, min({len(looks)}, floor({room} / {wide})))")
    return alt.Legend(columns=columns, labelExpr=wrapped(LEGEND_LINE), **options)


def group_colour(looks: Mapping[str, Look], **legend: Any) -> Any:
    alt = altair()
    scale = alt.Scale(domain=list(looks), range=[look.colour for look in looks.values()])
    return alt.Color("group:N", sort=None, scale=scale, legend=legend_of(looks, **legend))


def group_shape(looks: Mapping[str, Look]) -> Any:
    alt = altair()
    scale = alt.Scale(domain=list(looks), range=[look.shape for look in looks.values()])
    return alt.Shape("group:N", sort=None, scale=scale, legend=legend_of(looks))


def tooltips(**fields: str) -> list[Any]:
    """Title -> field with its type and, after a bar, the format of its number."""
    alt = altair()
    parts = [(title.replace("_", " "), *field.partition("|")) for title, field in fields.items()]
    return [alt.Tooltip(field, title=title, **({"format": form} if form else {})) for title, field, _, form in parts]


def dot_rows(
    rows: Sequence[Spec],
    title: str,
    looks: Mapping[str, Look] = ONE_GROUP,
    *,
    spans: Sequence[Spec] | None = None,
    has_labels: bool = False,
    most: float = 100.0,
) -> Spec:
    """Rows (`name`, `group`, `score`, `text`) as dots, because bars would have to start at zero and hide the gaps.

    Args:
        spans: lines (`name`, `low`, `high`) behind the dots, in grey; None: each dot's own interval, in its colour.
        has_labels: write the texts over the dots.
        most: the largest score there can be.
    """
    alt = altair()
    lines = rows if spans is None else spans
    # On a phone names are in lines of up to 22 characters, which leave room for the dots.
    label = {"labelExpr": f"{NARROW} ? {wrapped(22)} : datum.label", "labelLineHeight": 13}
    order = row_axis(lines, **(label if has_labels else {}))
    x = alt.X("low:Q", title=title, scale=score_scale(ends_of(lines), most))
    colour = group_colour(looks)
    behind = data(lines).mark_rule(strokeWidth=3 if spans is None else 5, opacity=0.55 if spans is None else 1)
    drawn = [behind.encode(y=order, x=x, x2="high:Q", color=colour if spans is None else alt.value("var(--line)"))]
    tooltip = tooltips(name="name:N", group="group:N", score="text:N", how="how:N", answers="n:Q")
    dots = data(rows).encode(y=order, x="score:Q")
    kept = [each for each in tooltip if rows and str(each.shorthand).split(":")[0] in rows[0]]
    marks = {"color": colour, "tooltip": kept} | ({"shape": group_shape(looks)} if spans is not None else {})
    drawn.append(dots.mark_point(filled=True, size=110, opacity=1).encode(**marks))
    if has_labels:
        drawn.append(dots.mark_text(dy=-13, fontSize=13, color=INK).encode(text="text:N"))
    return finished(alt.layer(*drawn).properties(height=alt.Step(ROW_HEIGHT + (10 if has_labels else -6))))


def curves(
    rows: Sequence[Spec],
    x: Any,
    looks: Mapping[str, Look],
    *,
    title: str = "mean score (%)",
    band: Sequence[Spec] = (),
    is_stepped: bool = False,
    behind: Sequence[Any] = (),
) -> Spec:
    """Lines of `score` over the axis `x`, one for each `group`, with a band (`low`, `high`) in the first one's colour.

    Args:
        behind: further layers, drawn first.
    """
    alt = altair()
    scale = score_scale([row["score"] for row in rows] + ([] if len(looks) > 1 else ends_of(band)))
    y = alt.Y("score:Q", title=title, scale=scale)
    shape = "step-after" if is_stepped else "linear"
    stroke: Spec = {"symbolType": "stroke", "symbolStrokeWidth": 3}
    colour = group_colour(looks, **stroke)
    dashes = alt.Scale(domain=list(looks), range=[list(look.dash) for look in looks.values()])
    legend = legend_of(looks, **stroke)
    dash = alt.StrokeDash("group:N", sort=None, scale=dashes, legend=legend)
    layers = list(behind)
    if band:
        first = next(iter(looks.values())).colour
        area = data(band).mark_area(opacity=0.12, color=first, clip=True, interpolate=shape)
        layers.append(area.encode(x=x, y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q"))
    base = data(rows).encode(x=x, y=y, color=colour)
    layers.append(base.mark_line(strokeWidth=2.5, interpolate=shape).encode(strokeDash=dash))
    if len(rows) <= MAX_DOTS * len(looks):
        shown = tooltips(curve="group:N", score="score:Q|.1f", used="amount:Q|.4~g", budget="budget:Q|.4~g", n="n:Q")
        kept = [each for each in shown if str(each.shorthand).split(":")[0] in rows[0]]
        layers.append(base.mark_point(filled=True, size=45, opacity=1).encode(tooltip=kept))
    return finished(alt.layer(*layers).properties(height=340 if len(looks) > 1 else 200))


def heat_map(
    rows: Sequence[Spec], across: Sequence[str], down: Sequence[str], titles: tuple[str | None, str | None]
) -> Spec:
    """Cells (`across`, `down`, `share` in [0, 1], `text`): the fuller the colour, the larger the share. Where
    `is_below` is true the colour is another one."""
    alt = altair()
    axis = {"grid": False, "ticks": False}
    x = alt.X(
        "across:N",
        sort=list(across),
        title=titles[0],
        scale=alt.Scale(domain=list(across)),
        axis=alt.Axis(labelAngle=-45, orient="bottom", **axis),
    )
    y = alt.Y("down:N", sort=list(down), title=titles[1], scale=alt.Scale(domain=list(down)), axis=alt.Axis(**axis))
    base = data(rows).encode(x=x, y=y)
    fill = alt.condition("datum.is_below", alt.value(HINDSIGHT), alt.value(ACCENT))
    full = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.08, 1]), legend=None)
    about = [alt.Tooltip("down:N", title=titles[1] or "row"), alt.Tooltip("across:N", title=titles[0] or "column")]
    cells = base.mark_rect().encode(color=fill, opacity=full, tooltip=[*about, alt.Tooltip("tip:N", title="here")])
    if len(across) > LABELLED_CELLS:
        return finished(cells.properties(height=alt.Step(CELL)), alt.Step(CELL), CELL // 2)
    ink = alt.condition("datum.share > 0.5", alt.value("var(--paper)"), alt.value(INK))
    texts = base.mark_text(fontSize=12).encode(text="text:N", color=ink)
    return finished(
        alt.layer(cells, texts).properties(height=alt.Step(CELL + 6)), alt.Step(LABELLED_CELL), LABELLED_CELL * 3 // 4
    )
