"""One row a score, in the layout that `coe outcomes import --format csv` reads."""

from __future__ import annotations

import csv

from eval.export_formats import ExportRequest, read_table
from eval.flat_scores import FIELDS, flat_scores
from training.datasets.spreadsheet import without_formula


def write(request: ExportRequest) -> int:
    """Gives the number of rows. Raises DataError."""
    rows = list(flat_scores(read_table(request)))
    with request.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows({name: without_formula(cell) for name, cell in row.items()} for row in rows)
    return len(rows)
