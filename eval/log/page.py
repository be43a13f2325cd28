"""report.html of a traffic report: one file that loads nothing, in the style of the routing report."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from eval.log import words
from eval.log.charts import log_charts
from eval.log.schema import LogReport
from eval.report import words as report_words
from eval.report.page import HTML_FILE, JSON_FILE, script_json
from router.errors import DataError, MissingExtraError

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
    paths = folder / JSON_FILE, folder / HTML_FILE
    html = render(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(report.model_dump_json(indent=1), encoding="utf-8")
        paths[1].write_text(html, encoding="utf-8")
    except OSError as error:
        raise DataError(f"--out: the report cannot be written to {folder} ({error.strerror})") from error
    return paths


def render(report: LogReport) -> str:
    """The page. Raises MissingExtraError."""
    try:
        import vl_convert
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("the report", "eval") from error

    environment = Environment(
        loader=PackageLoader("eval.log", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(report_words, name) for name in FILTERS}
    environment.filters |= {name: getattr(words, name) for name in OWN_FILTERS}
    charts = log_charts(report)
    values: dict[str, Any] = {
        "report": report,
        "charts": charts,
        "captions": CAPTIONS,
        "per_thousand": words.per_thousand,
        "style": (files("eval.report") / "page.css").read_text(encoding="utf-8"),
        "bundle": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        "specs": script_json(charts),
    }
    return environment.get_template("page.html.jinja").render(**values)
