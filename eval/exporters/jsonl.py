"""One line a score, in the layout that `coe outcomes import --format jsonl` reads."""

from __future__ import annotations

import json

from eval.export_formats import ExportRequest, read_table
from eval.flat_scores import flat_scores


def write(request: ExportRequest) -> int:
    """Gives the number of lines. Raises DataError."""
    rows = list(flat_scores(read_table(request)))
    with request.out.open("w", encoding="utf-8", newline="") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return len(rows)
