"""What stands under each chart, and which three charts a reader sees first."""

from __future__ import annotations

from collections.abc import Collection

from eval.report.charts import MAX_CATEGORIES
from eval.report.schema import Report
from eval.report.words import BUDGET_AXES

FIRST = ("chart-arms",)
SECOND = (
    "chart-calls",
    "chart-frontier-active_params_b",
    "chart-frontier-cost_usd",
    "chart-size",
    "chart-cost",
    "chart-categories",
)
THIRD = ("chart-regret",)
HULL = (
    " The dashed line is the non-decreasing convex hull of all that can be deployed, at every budget: what coins "
    "between them reach."
)


def top_charts(report: Report, charts: Collection[str]) -> list[str]:
    """Scores, what quality costs (or what is known instead), and where the rest is lost."""
    own = report.arms["coe"]
    amounts = {"chart-size": own.mean_active_params_b, "chart-cost": own.mean_cost_usd}
    shown = [name for name in charts if name not in amounts or amounts[name] is not None]
    found = (next((name for name in names if name in shown), None) for names in (FIRST, SECOND, THIRD))
    return [name for name in found if name is not None]


def captions(report: Report) -> dict[str, str]:
    """By the id of the chart."""
    tested = "same test query" if report.data.n_test == 1 else f"same {report.data.n_test:,} test queries"
    folded = f" (the {MAX_CATEGORIES} largest; the table has all)" if len(report.categories) > MAX_CATEGORIES else ""
    texts = {
        "chart-arms": f"Mean score on the {tested}, with 95% bootstrap intervals over queries. What has "
        "the hindsight colour looks at the answers: a ceiling, not a choice that anyone can make.",
        "chart-regret": "The distance from this router to the best expert for every query, in four parts that sum "
        "to it exactly. A bar to the left of zero means that this step won something.",
        "chart-categories": f"Mean score per true category, with the number of test queries in brackets{folded}. Small "
        "categories are noisy.",
        "chart-size": "Mean score against mean active parameters per query. Up and to the left is better.",
        "chart-cost": f"Mean score against mean cost. Up and to the left is better.{HULL if report.hull else ''}",
        "chart-calls": "Mean score as more queries go to the strong expert, those of largest predicted gain first. "
        "Random calls rise along the straight line.",
        "chart-reliability": "Bins of equal width. A dot on the diagonal keeps its promise; below it, too much was "
        "promised. Larger dots hold more queries.",
        "chart-confusion": "Rows are true categories, columns the most likely ones. The fuller a cell, the larger its "
        "share of the row.",
    }
    return texts | {f"chart-frontier-{name}": frontier_caption(name) for name in BUDGET_AXES}


def frontier_caption(budget: str) -> str:
    what = "what is kept in memory" if budget == "hosted_params_b" else "what was used on the test queries"
    single = "the best single expert that fits" if budget == "hosted_params_b" else "what a coin between experts does"
    return (
        f"Mean score under a rising budget, against {what}; up and to the left is better. The fixed mixture is "
        f"{single}. A larger budget can be left unspent, so a line never falls: it is the closest such one to what was "
        "measured, which the table has. The band is the 95% interval of the first curve."
    )
