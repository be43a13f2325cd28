"""report.html of a traffic report: one file that loads nothing, in the style of the routing report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.log import words
from eval.log.charts import log_charts
from eval.log.schema import LogReport
from eval.report import words as report_words
from eval.report.page_kit import page_assets, page_environment, script_json, write_pages

CAPTIONS = {
    "chart-timeline": "Decisions by the expert that served them. A dashed line marks the first decision of another "
    "router version. Times are UTC.",
    "chart-quality-time": "Mean reward of the rated answers, by the time of the request. The band is the 95% interval.",
    "chart-volume": "Decisions of each category, split by the expert that served them; the largest categories.",
    "chart-categories": "Mean reward per category, with the number of rated answers in brackets.",
    "chart-experts": "Mean reward per expert. Experts get different queries, so this is no comparison of experts.",
    "chart-rated": "Share of the answers that got feedback. Where it differs between groups, the plain mean of the "
    "feedback is that of those who speak.",
}
FILTERS = ("percent", "points", "share", "number")
OWN_FILTERS = (
    "moment",
    "between",
    "gap_range",
    "milliseconds",
    "total_dollars",
    "stretch",
    "shares_text",
    "switch_sentence",
)


def write_log_report(report: LogReport, folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html and returns their paths. Raises MissingExtraError, DataError."""
    return write_pages(report, render(report), folder)


def render(report: LogReport) -> str:
    """The page. Raises MissingExtraError."""
    environment = page_environment("eval.log")
    environment.filters |= {name: getattr(report_words, name) for name in FILTERS}
    environment.filters |= {name: getattr(words, name) for name in OWN_FILTERS}
    charts = log_charts(report)
    values: dict[str, Any] = {
        "report": report,
        "charts": charts,
        "captions": CAPTIONS,
        "per_thousand": words.per_thousand,
        **page_assets(),
        "specs": script_json(charts),
    }
    return environment.get_template("page.html.jinja").render(**values)
