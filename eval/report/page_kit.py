"""What the pages of all reports share: how templates are read, the style, and the charts' program, all inline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from router.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Environment

JSON_FILE = "report.json"
HTML_FILE = "report.html"


def write_pages(report: BaseModel, html: str, folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html and returns their paths. Raises DataError."""
    paths = folder / JSON_FILE, folder / HTML_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(report.model_dump_json(indent=1), encoding="utf-8")
        paths[1].write_text(html, encoding="utf-8")
    except OSError as error:
        raise DataError(f"--out: the report cannot be written to {folder} ({error.strerror})") from error
    return paths


def page_environment(package: str) -> Environment:
    """Templates of a package; a name that a template does not get is an error. Raises MissingExtraError."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("the report", "eval") from error
    return Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_assets() -> dict[str, str]:
    """Style sheet and bundled program, for a page that needs no network. Raises MissingExtraError."""
    try:
        import vl_convert
    except ImportError as error:
        raise MissingExtraError("the report", "eval") from error
    return {
        "style": (files("eval.report") / "page.css").read_text(encoding="utf-8"),
        "bundle": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
    }


def script_json(charts: Mapping[str, Any]) -> str:
    """JSON that may stand inside a script element: no text in it can end that element."""
    return json.dumps(charts, ensure_ascii=False).replace("<", "\\u003c")
