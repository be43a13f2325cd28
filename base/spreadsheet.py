"""Cells of CSV files that a spreadsheet would take for formulas: written behind an apostrophe, read without it."""

from __future__ import annotations

import re

# Spreadsheets evaluate a cell that begins so, also with the wide forms of East Asian keyboards (OWASP, CSV injection).
FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def without_formula(cell: object) -> object:
    """A cell as it is written: text that begins as a formula gets an apostrophe, text that has one already another, so
    that `as_meant` gives it back. Numbers stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def as_meant(cell: str) -> str:
    """A cell as it was before `without_formula`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
