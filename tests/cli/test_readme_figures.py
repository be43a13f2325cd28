"""Figures of the README's results, which are those of the pages that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    row
    for row in (ROOT / "README.md").read_text().partition("## Results")[2].partition("\n## ")[0].splitlines()
    if "](docs/results/" in row
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_figures_with_three_decimals_are_on_the_pages_that_the_row_names(row: str) -> None:
    """Coarser figures may be rounded; these are copied, and easily forgotten when a page is renewed."""
    pages = "".join((ROOT / page).read_text() for page in re.findall(r"\((docs/[^)#]+)", row))
    assert [figure for figure in re.findall(r"\b\d\.\d{3}\b", row) if figure not in pages] == []


def test_results_are_rows_with_pages() -> None:
    assert len(ROWS) > 10
