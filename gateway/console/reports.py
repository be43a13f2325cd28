"""Reports of `coe eval` in the folder `reports` of the data folder."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path

REPORTS_FOLDER, REPORT_FILE = "reports", "report.html"
TITLE = re.compile(rb"<title>(.*?)</title>", re.DOTALL)
TITLE_WITHIN_BYTES = 4096


@dataclass(frozen=True)
class Report:
    """A report; `name` is its folder, below that of all reports."""

    name: str
    title: str
    at: float
    path: Path


def find_reports(data_dir: Path) -> dict[str, Report]:
    """All by name, newest first."""
    root = data_dir / REPORTS_FOLDER
    found = [report_of(root, path) for path in root.glob(f"**/{REPORT_FILE}")]
    return {report.name: report for report in sorted(found, key=lambda each: -each.at)}


def report_of(root: Path, path: Path) -> Report:
    with path.open("rb") as file:
        title = TITLE.search(file.read(TITLE_WITHIN_BYTES))
    name = path.parent.relative_to(root).as_posix()
    words = html.unescape(title[1].decode("utf-8", "replace")) if title else name
    return Report(name, words, path.stat().st_mtime, path)
