"""report.html of `coe eval retrieval`: one file that loads nothing, in the style of the routing report."""

from __future__ import annotations

from pathlib import Path

from eval.report.page_kit import page_assets, page_environment, script_json, write_pages
from eval.retrieval.charts import SHOWN, all_charts
from eval.retrieval.schema import ArmScore, RetrievalReport


def write_report(report: RetrievalReport, folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html and returns their paths. Raises MissingExtraError, DataError."""
    return write_pages(report, render(report), folder)


def render(report: RetrievalReport) -> str:
    """The page. Raises MissingExtraError."""
    environment = page_environment("eval.retrieval")
    return environment.get_template("page.html.jinja").render(
        report=report,
        columns=[arm for arm in SHOWN if any(arm in found.arms for found in report.collections.values())],
        means=means_shown(report),
        **page_assets(),
        specs=script_json(all_charts(report)),
    )


def means_shown(report: RetrievalReport) -> dict[str, dict[str, ArmScore]]:
    """Captions and means; a second one over collections with train queries where some have none."""
    found = {"All collections": report.mean}
    if any(not collection.labelled for collection in report.collections.values()):
        found["With train queries"] = report.mean_prepared
    return found
