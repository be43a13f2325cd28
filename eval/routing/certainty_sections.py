"""Strong calls and certainty, as sections of the page: whether predictions come true, and what they buy."""

from __future__ import annotations

from eval.report import charts
from eval.report.charts import ACCENT, EXPERT, HINDSIGHT, SOFT, SQUARE, VIOLET, Look
from eval.report.numbers import cell_of, number, percent
from eval.report.page import Cell, Chart, Columns, Row, Section, Spec, Table, table_of
from eval.routing.routing_records import Calibration, CheapStrong, Report
from eval.routing.routing_words import CATEGORY_CURVE, ORDER_NAMES, call_label, leading_method, shown_orders

METHOD_LOOKS = (Look(ACCENT), Look(EXPERT), Look(VIOLET))
ORDER_LOOKS = {"random": Look(SOFT), "oracle": Look(HINDSIGHT)}
GAP_LEVELS = (50, 80)


def calls_section(report: Report, pair: CheapStrong) -> Section:
    """The use of strong calls between two experts."""
    lead = leading_method(report)
    rows = []
    for name, order in pair.orders.items():
        ends = [] if order.apgr is None else [f"{each:.3f}" for each in (order.apgr.mean, *order.apgr.interval)]
        cells = [Cell(ends[0], " to ".join(ends[1:])) if ends else Cell("no gap")]
        cells += [cell_of(order.cpt.get(level)) for level in GAP_LEVELS]
        rows.append(Row(call_label(report, name), cells, is_own=name == lead))
    text = (
        f"{pair.weak} alone scores {percent(pair.weak_score)}, {pair.strong} {percent(pair.strong_score)}, and the "
        f"better of the two for every query {percent(pair.oracle_score)}. APGR is the share of the gap between them "
        "that is recovered on average over all shares of strong calls; CPT is the least share of strong calls that "
        "recovers so much of it."
    )
    caption = (
        "Mean score as more queries go to the strong expert, those of largest predicted gain first. Random calls rise "
        "along the straight line."
    )
    chart = Chart("chart-calls", calls_chart(report, pair), caption)
    return Section("calls", "Cheap and strong", [text, chart, Table(["Order", "APGR", "CPT(50%)", "CPT(80%)"], rows)])


def calls_chart(report: Report, pair: CheapStrong) -> Spec:
    """Score over the share of strong calls; the rules are 50% and 80% of the gap between the two experts."""
    names = shown_orders(report, pair)
    methods = [name for name in names if name not in ORDER_NAMES]
    look_of = {**ORDER_LOOKS, **dict(zip(methods, METHOD_LOOKS, strict=False))}
    rows: list[Spec] = [
        {"group": call_label(report, name), "share": 100 * share, "score": 100 * score}
        for name in names
        for share, score in zip(pair.orders[name].share, pair.orders[name].mean_score, strict=True)
    ]
    gap = pair.strong_score - pair.weak_score
    rules: list[Spec] = [
        {"score": 100 * (pair.weak_score + level / 100 * gap), "share": 100, "text": f"{level}% of the gap"}
        for level in GAP_LEVELS
        if gap > 0
    ]
    alt = charts.altair()
    levels = charts.data(rules)
    marks = levels.mark_rule(strokeDash=[3, 4], color=SOFT).encode(y="score:Q")
    texts = levels.mark_text(align="right", dy=-8, dx=-4, fontSize=12, color=SOFT)
    x = alt.X("share:Q", title="queries sent to the strong expert (%)", scale=alt.Scale(domain=[0, 100]))
    looks = {call_label(report, name): look_of[name] for name in names}
    behind = [marks, texts.encode(y="score:Q", x="share:Q", text="text:N")]
    return charts.curves(rows, x, looks, behind=behind)


def certainty_section(report: Report) -> Section:
    """Calibration of probabilities and predicted scores, and confusion of categories."""
    columns: Columns[Calibration] = {
        "Queries": lambda _, found: str(found.n),
        "Calibration error (ECE)": lambda _, found: percent(found.ece),
        "Brier score": lambda _, found: number(found.brier, 3),
    }
    table = table_of(
        "Prediction",
        report.calibration,
        columns,
        caption="Calibration",
        label=lambda name, _: curve_of(report, name),
        own=leading_method(report),
    )
    blocks = [reliability_chart(report), confusion_chart(report), table]
    return Section("certainty", "How sure it is, and how right", blocks)


def curve_of(report: Report, name: str) -> str:
    return CATEGORY_CURVE if name == "category" else f"score predicted by {call_label(report, name)}"


def reliability_chart(report: Report) -> Chart | None:
    """Bins of the confidence in the category and of the leading method's predicted score. None without predictions."""
    names = [name for name in ("category", leading_method(report)) if name is not None]
    known = {curve_of(report, name): report.calibration[name] for name in names if name in report.calibration}
    rows: list[Spec] = [
        {"group": label, "predicted": 100 * p.predicted, "observed": 100 * p.observed, "queries": p.count}
        for label, found in known.items()
        for p in found.points
    ]
    if not rows:
        return None
    alt = charts.altair()
    scale, ticks = alt.Scale(domain=[0, 100]), alt.Axis(values=list(range(0, 101, 20)))
    x = alt.X("predicted:Q", title="predicted (%)", scale=scale, axis=ticks)
    y = alt.Y("observed:Q", title="came true (%)", scale=scale, axis=ticks)
    ends = charts.data([{"predicted": 0, "observed": 0}, {"predicted": 100, "observed": 100}])
    diagonal = ends.mark_line(strokeDash=[4, 4], color=SOFT, strokeWidth=1.5).encode(x=x, y=y)
    looks = dict(zip(known, METHOD_LOOKS, strict=False))
    base = charts.data(rows).encode(x=x, y=y, color=charts.group_colour(looks))
    size = alt.Size("queries:Q", scale=alt.Scale(range=[25, 350]), legend=None)
    tooltip = charts.tooltips(
        series="group:N", predicted="predicted:Q|.1f", observed="observed:Q|.1f", queries="queries:Q"
    )
    dots = base.mark_point(filled=True, opacity=0.85).encode(size=size, tooltip=tooltip)
    layers = alt.layer(diagonal, base.mark_line(strokeWidth=1.5, opacity=0.35), dots)
    caption = (
        "Bins of equal width. A dot on the diagonal is well calibrated; one below it is overconfident. Larger dots "
        "hold more queries."
    )
    return Chart("chart-reliability", charts.finished(layers.properties(height=SQUARE), SQUARE), caption)


def confusion_chart(report: Report) -> Chart | None:
    """Chart of true against most likely categories; None with one category."""
    found = report.confusion
    if found is None or len(found.categories) < 2:
        return None
    names = list(found.categories)
    rows: list[Spec] = [
        {
            "down": names[i],
            "across": names[j],
            "share": count / max(sum(line), 1),
            "text": str(count),
            "tip": f"{count} queries, {count / max(sum(line), 1):.0%} of the row",
        }
        for i, line in enumerate(found.counts)
        for j, count in enumerate(line)
        if count
    ]
    caption = (
        "Rows are true categories, columns the most likely ones. The fuller a cell, the larger its share of the row."
    )
    spec = charts.heat_map(rows, names, names, ("most likely category", "true category"))
    return Chart("chart-confusion", spec, caption)
