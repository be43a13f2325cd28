"""The charts of report.html as Vega-Lite specifications, made with Altair."""

from __future__ import annotations

from eval.report.charts.amounts import amount_chart
from eval.report.charts.arms import arms_chart
from eval.report.charts.categories import MAX_CATEGORIES, categories_chart
from eval.report.charts.confusion import confusion_chart
from eval.report.charts.frontier import frontier_chart
from eval.report.charts.regret import regret_chart
from eval.report.charts.reliability import reliability_chart
from eval.report.charts.strong_calls import strong_calls_chart
from eval.report.charts.style import Spec, finished, label_positions
from eval.report.schema import Report
from eval.report.words import BUDGET_AXES
from router.errors import MissingExtraError

__all__ = ["MAX_CATEGORIES", "Spec", "all_charts", "label_positions"]

SQUARE = 400
"""Width of charts whose two axes are the same, in pixels."""


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
        "chart-size": amount_chart(alt, report, "mean_active_params_b"),
        "chart-cost": amount_chart(alt, report, "mean_cost_usd"),
        "chart-calls": strong_calls_chart(alt, report),
    }
    charts |= {f"chart-frontier-{name}": frontier_chart(alt, report, name) for name in BUDGET_AXES}
    squares = {"chart-reliability": reliability_chart(alt, report), "chart-confusion": confusion_chart(alt, report)}
    found = {name: finished(chart) for name, chart in charts.items() if chart is not None}
    return found | {name: finished(chart, SQUARE) for name, chart in squares.items() if chart is not None}
