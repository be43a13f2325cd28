"""report.html of `coe eval retrieval`: one file that loads nothing, in the style of the routing report."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from eval.report.page import HTML_FILE, JSON_FILE
from eval.retrieval.charts import SHOWN, all_charts
from eval.retrieval.schema import RetrievalReport
from router.errors import MissingExtraError


def write_report(report: RetrievalReport, folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html and returns their paths. Raises MissingExtraError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / JSON_FILE, folder / HTML_FILE
    paths[0].write_text(report.model_dump_json(indent=1), encoding="utf-8")
    paths[1].write_text(render(report), encoding="utf-8")
    return paths


def render(report: RetrievalReport) -> str:
    """The page. Raises MissingExtraError."""
    try:
        import vl_convert
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("the report", "eval") from error
    environment = Environment(
        loader=PackageLoader("eval.retrieval", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    specs = json.dumps(all_charts(report), ensure_ascii=False).replace("<", "\\u003c")
    return environment.get_template("page.html.jinja").render(
        report=report,
        columns=[arm for arm in SHOWN if any(arm in found.arms for found in report.collections.values())],
        means={"All collections": report.mean, "With train queries": report.mean_prepared},
        style=(files("eval.report") / "page.css").read_text(encoding="utf-8"),
        bundle=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        specs=specs,
    )
