"""report.html: one file that loads nothing. The Vega bundle stands in it once and draws every chart as SVG."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from eval.report import words
from eval.report.charts import MAX_CATEGORIES, Spec, all_charts
from eval.report.schema import Report
from router.errors import MissingExtraError

JSON_FILE = "report.json"
HTML_FILE = "report.html"


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html and returns their paths. Raises MissingExtraError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / JSON_FILE, folder / HTML_FILE
    paths[0].write_text(report.model_dump_json(indent=1), encoding="utf-8")
    paths[1].write_text(render(report), encoding="utf-8")
    return paths


def render(report: Report) -> str:
    """The page. Raises MissingExtraError."""
    try:
        import vl_convert
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("the report", "eval") from error

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for name in ("percent", "points", "points_range", "dollars", "billions"):
        environment.filters[name] = getattr(words, name)
    charts = all_charts(report)
    folder = files("eval.report")
    return environment.from_string((folder / "page.html.jinja").read_text(encoding="utf-8")).render(
        report=report,
        verdict=words.verdict(report.gain["best_single"]),
        regret_sentence=words.regret_sentence(report.regret),
        part_names=words.PART_NAMES,
        part_meaning=words.PART_MEANING,
        charts=charts,
        max_categories=MAX_CATEGORIES,
        style=(folder / "page.css").read_text(encoding="utf-8"),
        bundle=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        specs=script_json(charts),
    )


def script_json(charts: dict[str, Spec]) -> str:
    """JSON that may stand inside a script element: no text in it can end that element."""
    return json.dumps(charts, ensure_ascii=False).replace("<", "\\u003c")
