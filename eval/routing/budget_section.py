"""Quality against budgets, as a section of the page: the frontiers, all choices on one plane, quality as one number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from eval.report import charts
from eval.report.charts import ACCENT, EXPERT, HINDSIGHT, INK, SOFT, VIOLET, Look
from eval.report.numbers import billions, cell_of, counted, dollars, percent, percent_range, points, points_range
from eval.report.page import Block, Cell, Chart, Columns, Fold, Heading, Note, Row, Section, Spec, Table, table_of
from eval.routing.frontier import first_reaching
from eval.routing.routing_records import ExpertRow, FrontierPoint, Report
from eval.routing.routing_words import (
    BUDGET_AXES,
    FEWEST_DRAWN,
    amount,
    curve_label,
    draws_curves,
    is_flat,
    leading_method,
    shown_curves,
)

MAX_LABELLED, MAX_LABELLED_NARROW = 10, 4
ALONE = "one expert alone"
ROLES = {
    "this router": Look(ACCENT),
    "method": Look(EXPERT, "square"),
    "reference": Look(SOFT, "cross"),
    "hindsight": Look(HINDSIGHT, "triangle-up"),
    ALONE: Look(INK, "diamond"),
}
ROLE_OF_ARM = {
    "coe": "this router",
    "best_single_hindsight": "hindsight",
    "category_oracle": "hindsight",
    "query_oracle": "hindsight",
}
CURVE_LOOKS = {"map": Look(EXPERT), "map_drawn": Look(VIOLET, dash=(6, 3)), "best_mixture": Look(SOFT, dash=(2, 3))}
Curves = Mapping[str, tuple[FrontierPoint, ...]]
Amount = Literal["mean_active_params_b", "mean_cost_usd"]
PLANES: dict[Amount, tuple[str, str, str, float]] = {
    "mean_active_params_b": ("chart-size", "active_params_b", "mean active parameters per query (billions)", 1),
    "mean_cost_usd": ("chart-cost", "mean_cost_usd", "mean cost per 1,000 queries (USD)", 1000),
}
"""Amount of an arm -> id of its chart, the same amount of an expert, title of the axis, its unit."""


def budget_section(report: Report) -> Section:
    """Frontiers, planes, one number per choice, and every expert alone."""
    planes = [chart for chart in (plane(report, kind) for kind in PLANES) if chart is not None]
    said = [*frontier_sentences(report), *filter(None, (same_sentence(report, kind) for kind in PLANES))]
    nothing = "Neither sizes nor costs of the experts are known, so there is nothing to draw."
    blocks: list[Block] = [*(said or ([] if planes else [nothing]))]
    if draws_curves(report):
        for budget in telling_curves(report):
            blocks += [Heading(BUDGET_AXES[budget].name), frontier(report, budget), frontier_table(report, budget)]
    if planes:
        blocks += [Heading("All choices on one plane"), *planes]
    if report.aiq or report.router_arena:
        blocks += [
            one_number_table(report),
            Note(
                "AIQ is the mean height of the non-decreasing convex hull of quality over cost, from no cost to that "
                "of the most expensive expert (RouterBench). RouterArena's score weighs accuracy against the logarithm "
                "of cost."
            ),
        ]
    return Section("costs", "Quality against budgets", [*blocks, experts_table(report)])


def same_sentence(report: Report, kind: Amount) -> str | None:
    """The reason for a missing plane where all choices use about the same."""
    used = [row["amount"] for row in plane_rows(report, kind)]
    if len(used) < 2 or not is_flat(used):
        return None
    between = f"{min(used):.3g}" if min(used) == max(used) else f"{min(used):.3g} to {max(used):.3g}"
    return f"A chart over {PLANES[kind][2]} would say nothing: all choices have about the same, {between}."


def telling_curves(report: Report) -> dict[str, Curves]:
    """The frontiers over budgets whose amounts differ."""
    return {
        name: curves
        for name, curves in report.frontier.items()
        if not is_flat([point.amount for curve in curves.values() for point in curve])
    }


def frontier_sentences(report: Report) -> list[str]:
    """For each budget: the largest certain gain over the mixture, and where the best single expert's quality is met; of
    a sample that is too small, one sentence that says so."""
    if report.frontier and not draws_curves(report):
        return [
            f"Quality over budgets is not shown: from {counted(report.data.n_test, 'test query', 'test queries')} a "
            f"larger budget can seem to buy less. It is shown from {FEWEST_DRAWN} test queries on; report.json has "
            "what was measured."
        ]
    lead = leading_method(report)
    found = []
    for budget, curves in telling_curves(report).items():
        name = lead if lead in curves else "map" if "map" in curves else None
        if name is not None and budget != "hosted_params_b":
            found.append(f"{BUDGET_AXES[budget].name}: {gain_sentence(report, budget, name)}")
    return found


def gain_sentence(report: Report, budget: str, name: str) -> str:
    """One curve against the mixture, and against the best single expert."""
    curve = report.frontier[budget][name]
    label = curve_label(report, name)
    best = max(curve, key=lambda point: point.gain.interval[0] if point.gain else -1.0)
    said = f"{label} is nowhere clearly above the best fixed mixture of experts."
    if best.gain is not None and best.gain.interval[0] > 0:
        said = (
            f"{label} is furthest above the best fixed mixture of experts at {amount(best.amount, budget)}, by "
            f"{points(best.gain.mean)} points ({points_range(best.gain.interval)})."
        )
    return f"{said} {single_sentence(report, budget, curve)}"


def single_sentence(report: Report, budget: str, curve: Sequence[FrontierPoint]) -> str:
    """The amount that is needed to be as good as the best single expert."""
    single = report.arms["best_single"]
    spent = {"active_params_b": single.mean_active_params_b, "cost_usd": single.mean_cost_usd}[budget]
    known = f" at {amount(spent, budget)}" if spent is not None else ""
    target = f"The best single expert's {percent(single.mean_score)}{known}"
    reached = first_reaching(curve, single.mean_score)
    if reached is None:
        return f"{target} is not reached at any budget; the most is {percent(max(p.mean_score for p in curve))}."
    return f"{target} is reached with {amount(reached.amount, budget)}."


def rising(points: Sequence[FrontierPoint]) -> Iterator[tuple[FrontierPoint, float, float, float]]:
    """Points in order of the amount that they used, with score and interval as they are drawn: the closest values that
    never fall."""
    from sklearn.isotonic import isotonic_regression

    ordered = sorted(points, key=lambda point: point.amount)
    measured = ([p.mean_score for p in ordered], [p.interval[0] for p in ordered], [p.interval[1] for p in ordered])
    return zip(ordered, *(isotonic_regression(values).tolist() for values in measured), strict=True)


def frontier(report: Report, budget: str) -> Chart:
    """Test quality against the amount used. A larger budget can be left unspent, so a line never falls: it is the
    closest such line to the measured points. The band is the interval of the first curve, treated in the same way."""
    curves, axis = report.frontier[budget], BUDGET_AXES[budget]
    names = shown_curves(report, curves)
    labels = [curve_label(report, name) for name in names]
    rows: list[Spec] = [
        {
            "group": label,
            "budget": axis.unit * point.budget,
            "amount": axis.unit * point.amount,
            "score": 100 * score,
            "low": 100 * low,
            "high": 100 * high,
        }
        for name, label in zip(names, labels, strict=True)
        for point, score, low, high in rising(curves[name])
    ]
    alt = charts.altair()
    is_hosted = budget == "hosted_params_b"
    spec = charts.curves(
        rows,
        alt.X("amount:Q", title=axis.title, scale=alt.Scale(zero=False, nice=True)),
        {label: Look(ACCENT) if i == 0 else CURVE_LOOKS[names[i]] for i, label in enumerate(labels)},
        band=[row for row in rows if row["group"] == labels[0]],
        # Nothing lies between two sets of hosted experts, but a random mixture lies between two active ones.
        is_stepped=is_hosted,
    )
    used = "what is kept in memory" if is_hosted else "what was used on the test queries"
    single = "the best single expert that fits" if is_hosted else "what a coin between experts does"
    return Chart(
        f"chart-frontier-{budget}",
        spec,
        f"Mean score under a rising budget, against {used}; up and to the left is better. The fixed mixture is "
        f"{single}. A larger budget can be left unspent, so a line never falls: it is the closest such line to what "
        "was measured, which the table has. The band is the 95% interval of the first curve.",
    )


def frontier_table(report: Report, budget: str) -> Fold:
    """Every budget of the grid, folded."""
    curves, name = report.frontier[budget], BUDGET_AXES[budget].name
    shown = shown_curves(report, curves)
    columns = ["Budget"]
    for curve in shown:
        columns += [curve_label(report, curve), "used", *(["minus mixture"] if curve != "best_mixture" else [])]
    rows = []
    for i, point in enumerate(curves[shown[0]]):
        cells: list[Cell | str] = []
        for curve in shown:
            at = curves[curve][i]
            cells += [percent(at.mean_score), amount(at.amount, budget)]
            cells += [cell_of(at.gain, points)] if curve != "best_mixture" else []
        rows.append(Row(amount(point.budget, budget), cells))
    caption = "Mean score on test, what was used, and points above the best fixed mixture that may spend as much"
    return Fold(f"Every budget on {name.lower()}", [Table(columns, rows, caption, is_wide=True)])


def plane(report: Report, kind: Amount) -> Chart | None:
    """Score against size or cost; None where fewer than two choices have a known amount, or all have about the same."""
    rows = plane_rows(report, kind)
    if len(rows) < 2 or is_flat([row["amount"] for row in rows]):
        return None
    alt = charts.altair()
    id, _, title, _ = PLANES[kind]
    looks = {role: look for role, look in ROLES.items() if any(row["group"] == role for row in rows)}
    y = alt.Y("score:Q", title="mean score (%)", scale=charts.score_scale([row["score"] for row in rows]))
    base = charts.data(rows).encode(x=alt.X("amount:Q", title=title, scale=alt.Scale(zero=True, nice=True)), y=y)
    tooltip = charts.tooltips(name="name:N", score="score:Q|.1f", used="amount:Q|.4~g")
    colour, shape = charts.group_colour(looks), charts.group_shape(looks)
    dots = base.mark_point(filled=True, size=110, opacity=0.9).encode(color=colour, shape=shape, tooltip=tooltip)
    wide, narrow = (labels_of(rows, names) for names in ("label_text", "short_text"))
    labels = charts.data(
        [*({**row, "is_short": False} for row in wide), *({**row, "is_short": True} for row in narrow)]
    )
    labels = labels.transform_filter(f"datum.is_short == ({charts.NARROW})")
    labels = labels.mark_text(align="left", dx=10, fontSize=12, color=INK)
    layers: list[Any] = [dots, labels.encode(x="amount:Q", text="shown:N", y="label:Q")]
    caption = "Mean score against mean active parameters per query. Up and to the left is better."
    if kind == "mean_cost_usd":
        caption = "Mean score against mean cost. Up and to the left is better."
        if len(report.hull) > 1:
            corners: list[Spec] = [{"amount": 1000 * cost, "score": 100 * quality} for cost, quality in report.hull]
            line = charts.data(corners).mark_line(strokeDash=[6, 4], strokeWidth=1.5, color=SOFT)
            layers.insert(0, line.encode(x="amount:Q", y="score:Q"))
            caption += (
                " The dashed line is the non-decreasing convex hull of all that can be deployed, at every budget: what "
                "coins between them reach."
            )
    return Chart(id, charts.finished(alt.layer(*layers).properties(height=400)), caption)


def labels_of(rows: Sequence[Spec], name: str) -> list[Spec]:
    """The rows whose field of that name is a label, with the height where it is written."""
    found = [row for row in rows if row[name]]
    places = label_positions([(row["amount"], row["score"]) for row in found])
    return [{**row, "shown": row[name], "label": place} for row, place in zip(found, places, strict=True)]


def plane_rows(report: Report, kind: Amount) -> list[Spec]:
    """Arms that mix experts, methods, and every expert alone. Of the methods only the default is labelled, experts
    only where they are few, on a phone only this router and the fewest experts; the others say their name under the
    pointer."""
    found = [
        (arm.label, ROLE_OF_ARM.get(name, "reference"), arm.mean_score, getattr(arm, kind), True)
        for name, arm in report.arms.items()
        if name not in ("best_single", "best_single_hindsight", "cheapest")
    ]
    found += [(m.label, "method", m.mean_score, getattr(m, kind), m.is_default) for m in report.methods.values()]
    is_labelled, is_few = (len(report.experts) <= most for most in (MAX_LABELLED, MAX_LABELLED_NARROW))
    _, of_expert, _, unit = PLANES[kind]
    found += [(row.expert, ALONE, row.mean_score, getattr(row, of_expert), is_labelled) for row in report.experts]
    return [
        {
            "name": name,
            "group": role,
            "score": 100 * score,
            "amount": unit * value,
            "label_text": name if is_shown else "",
            "short_text": name if role == "this router" or (role == ALONE and is_few) else "",
        }
        for name, role, score, value, is_shown in found
        if value is not None
    ]


def label_positions(dots: list[tuple[float, float]]) -> list[float]:
    """Heights of the labels beside dots (x, y): each as near its dot as it can be without lying on a label above it."""
    wide = 0.4 * max([x for x, _ in dots] + [1e-9])  # about as far as a label reaches on an axis from zero
    scores = [y for _, y in dots] or [0.0]
    high = 0.04 * max(max(scores) - min(scores), 1.0)  # a line of text
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


def one_number_table(report: Report) -> Table:
    """Every choice that has an AIQ or a RouterArena score, by the latter."""
    arena, aiq = report.router_arena, report.aiq
    names = sorted(
        {**arena, **aiq}, key=lambda name: [-found[name].mean if name in found else 0.0 for found in (arena, aiq)]
    )
    label = {name: report.arms[name].label if name in report.arms else curve_label(report, name) for name in names}
    columns: Columns[str] = {
        "AIQ": lambda name, _: cell_of(aiq.get(name)),
        "RouterArena score": lambda name, _: cell_of(arena.get(name)),
    }
    caption = "Quality and cost as one number, each of 100"
    return table_of("Choice", label, columns, caption=caption, label=lambda _, said: said, own="coe")


def experts_table(report: Report) -> Table:
    columns: Columns[ExpertRow] = {
        "Mean score": lambda _, one: percent(one.mean_score),
        "95% interval": lambda _, one: percent_range(one.interval),
        "On fit data": lambda _, one: percent(one.fit_score),
        "Active parameters": lambda _, one: billions(one.active_params_b),
        "Cost per 1,000 queries": lambda _, one: dollars(one.mean_cost_usd),
        "Share of this router": lambda _, one: percent(one.share),
    }
    experts = {one.expert: one for one in report.experts}
    return table_of("Expert", experts, columns, caption="Every expert alone, on the test queries")
