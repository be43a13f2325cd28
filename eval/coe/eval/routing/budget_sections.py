"""The sections of a routing report on quality under rising budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coe.eval.report import drawing
from coe.eval.report.numbers import billions, dollars, percent, points
from coe.eval.report.page import Chart, Column, Form, Section, cite, table_of
from coe.eval.routing.frontier import WITHIN
from coe.eval.routing.routing_records import FrontierPoint, Report
from coe.router.config.policy import QUALITY_FLOOR

MIN_DRAWN_QUERIES = 200
"""Number of test queries below which no quality over budgets is drawn (ours). Each point would lie within some 7
points of the truth or worse, and a larger budget would seem to buy less."""
SAME_AMOUNT = 1.1
"""Ratio of the largest amount to the smallest up to which they count as the same (ours)."""
BUDGETS: Mapping[str, tuple[str, Form, str, float]] = {
    "active_params_b": ("active parameters", billions, "mean active parameters per query (billions)", 1),
    "cost_usd": ("cost", dollars, "mean cost per 1,000 queries (USD)", 1000),
    "hosted_params_b": ("hosted parameters", billions, "parameters of all experts that serve (billions)", 1),
}
"""Budget -> its name, the format of an amount, title of the axis, unit of the axis."""


def budget_sections(report: Report) -> list[Section]:
    """Return a section for each budget that `is_informative` accepts."""
    return [budget_section(report, budget) for budget in report.frontier if is_informative(report, budget)]


def is_informative(report: Report, budget: str) -> bool:
    """Return whether there are enough test queries for quality over a budget, and its points use different amounts."""
    amounts = [point.amount for curve in report.frontier[budget].values() for point in curve]
    return report.data.n_test >= MIN_DRAWN_QUERIES and max(amounts) > SAME_AMOUNT * min(amounts)


def budget_section(report: Report, budget: str) -> Section:
    """Return the section on quality against the amount used, beside the fixed mixture."""
    name, form, title, unit = BUDGETS[budget]
    coe, mixture = report.frontier[budget]["coe"], report.frontier[budget]["best_mixture"]
    both = [(form(pair[0].budget), pair) for pair in zip(coe, mixture, strict=True)]
    columns: list[Column[tuple[FrontierPoint, FrontierPoint]]] = [
        Column("This router", lambda pair: pair[0].score, percent),
        Column("Used", lambda pair: pair[0].amount, form),
        Column("Minus mixture", lambda pair: pair[0].gain, points, is_difference=True),
        Column("Best fixed mixture", lambda pair: pair[1].score, percent),
        Column("Mixture used", lambda pair: pair[1].amount, form),
    ]
    floor = report.frontier[budget].get(QUALITY_FLOOR, ())
    curves = (("This router", coe), ("Best fixed mixture", mixture), (f"Cheapest {WITHIN.words}", floor))
    rows = [
        {"group": label, "x": unit * at.amount, "y": at.mean_score, "low": at.interval[0], "high": at.interval[1]}
        for label, curve in curves
        for at in curve
    ]
    caption = "Mean score under a rising budget, with 95% intervals. Up and to the left is better."
    chart = Chart(caption, drawing.lines(rows, (title, "mean score"), ".0%"))
    sentence = f"{gain_sentence(coe, form)} {single_sentence(report, budget, form)}"
    for at in floor:
        sentence += (
            f" The cheapest plan predicted {WITHIN.words} uses {form(at.amount)} and scores {percent(at.mean_score)}."
        )
    note = (
        "The fixed mixture is a coin between two experts, or the best single expert that fits in memory; in the "
        "difference it may spend the budget, or what this router used if that is more."
    )
    return Section(f"Quality against {name}", sentence, table_of("Budget", both, columns), chart, note)


def gain_sentence(coe: Sequence[FrontierPoint], form: Form) -> str:
    """Describe the largest certain gain over the mixture."""
    known = [(point, point.gain) for point in coe if point.gain is not None]
    best, gain = max(known, key=lambda pair: pair[1].interval[0])
    if gain.interval[0] <= 0:
        return "This router is nowhere clearly above the best fixed mixture of experts."
    over = cite(gain, points, " points")
    return f"This router is furthest above the best fixed mixture of experts at {form(best.amount)}, by {over}."


def single_sentence(report: Report, budget: str, form: Form) -> str:
    """Describe the amount that is needed to be as good as the best single expert."""
    single, curve = report.arms["best_single"], report.frontier[budget]["coe"]
    target = f"The best single expert's {percent(single.mean_score)}"
    reaching = [point.amount for point in curve if point.mean_score >= single.mean_score - 1e-9]
    if not reaching:
        return f"{target} is not reached at any budget; the most is {percent(max(p.mean_score for p in curve))}."
    return f"{target} is reached with {form(min(reaching))}."
