"""report.html: one file that loads nothing. The Vega bundle stands in it once and draws every chart as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.report import words
from eval.report.captions import captions, top_charts
from eval.report.charts import MAX_CATEGORIES, Spec, all_charts
from eval.report.frontier_words import frontier_sentences, one_number
from eval.report.page_kit import page_assets, page_environment, script_json, write_pages
from eval.report.schema import Report

FILTERS = (
    "counted",
    "percent",
    "points",
    "points_range",
    "dollars",
    "billions",
    "share",
    "number",
    "seconds",
    "microseconds",
    "amount",
)
SECTIONS = {
    "scores": ("scores", "Arms and methods"),
    "regret": ("regret", "Regret accounting"),
    "categories": ("categories", "By category"),
    "costs": ("amounts", "Quality against budgets"),
    "calls": ("calls", "Cheap and strong"),
    "certainty": ("certainty", "How sure it is, and how right"),
    "stability": ("stability", "Stability"),
    "diagnostics": ("diagnostics", "Diagnostics"),
    "lost": ("lost", "Queries lost by the most"),
    "measured": ("measured", "How this was measured"),
}
"""Id of each section -> its template and title, in the order of the page."""


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html and returns their paths. Raises MissingExtraError, DataError."""
    return write_pages(report, render(report), folder)


def render(report: Report) -> str:
    """The page. Raises MissingExtraError."""
    environment = page_environment("eval.report")
    environment.filters |= {name: getattr(words, name) for name in FILTERS}
    charts = all_charts(report)
    return environment.get_template("page.html.jinja").render(
        **values(report, charts),
        **page_assets(),
        specs=script_json(charts),
    )


def values(report: Report, charts: dict[str, Spec]) -> dict[str, Any]:
    """What the templates read."""
    top = top_charts(report, charts)
    return {
        "report": report,
        "verdict": words.verdict(report.gain["best_single"], report.data.n_test, report.power),
        "is_told": report.data.n_test >= words.FEWEST_TOLD,
        "regret_sentence": words.regret_sentence(report.regret),
        "frontier_sentences": frontier_sentences(report),
        "one_number": one_number(report),
        "diagnosis": words.diagnosis(report.diagnostics) if report.diagnostics else [],
        "leading": words.leading_method(report),
        "part_names": words.PART_NAMES,
        "part_meaning": words.PART_MEANING,
        "budget_axes": words.BUDGET_AXES,
        "category_curve": words.CATEGORY_CURVE,
        "curve_label": words.curve_label,
        "call_label": words.call_label,
        "shown_curves": words.shown_curves,
        "draws_curves": words.draws_curves(report),
        "charts": charts,
        "captions": captions(report),
        "top": top,
        "top_titles": {name: words.top_title(name) for name in top},
        "amount_charts": [name for name in charts if name.startswith(("chart-frontier", "chart-size", "chart-cost"))],
        "contents": [(name, title) for name, (_, title) in SECTIONS.items() if has_section(report, name)],
        "files": {name: file for name, (file, _) in SECTIONS.items()},
        "max_categories": MAX_CATEGORIES,
    }


def has_section(report: Report, name: str) -> bool:
    """Whether a section has anything to show; most always do."""
    optional = {
        "calls": report.cheap_strong is not None,
        "certainty": bool(report.calibration),
        "stability": report.robustness is not None,
        "diagnostics": report.diagnostics is not None,
        "lost": bool(report.lost),
    }
    return optional.get(name, True)
