"""The frame of RouterBench, as Parquet or CSV. Answers are not in an outcome table, so `<model>|model_response` is
empty; the column is there because RouterBench tells models by it.
"""

from __future__ import annotations

import csv

import numpy as np

from eval.export_formats import ExportRequest, cell, read_table, refuse_names
from router.errors import ConfigError
from training.datasets.importers.routerbench import COST, FRAME_COLUMNS, NONE_CORRECT, ORACLE, RESPONSE
from training.datasets.spreadsheet import without_formula
from training.types import OutcomeTable


def write(request: ExportRequest) -> int:
    """Gives the number of rows. Raises DataError, ConfigError on another ending."""
    suffix = request.out.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise ConfigError(f"--out {request.out}: ending '{suffix}' is not allowed; expected .parquet or .csv")
    table = read_table(request)
    parts = [f"{name}{part}" for name in table.experts for part in (RESPONSE, COST)]
    refuse_names(request.out, table.experts, [*FRAME_COLUMNS, *parts])
    columns = frame(table)
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), request.out, compression="zstd")
    else:
        with request.out.open("w", encoding="utf-8", newline="") as file:
            rows = [tuple(columns), *zip(*columns.values(), strict=True)]
            csv.writer(file).writerows([without_formula(each) for each in row] for row in rows)
    return len(table.prompt_ids)


def frame(table: OutcomeTable) -> dict[str, list[object]]:
    """Columns by name. A prompt is written as Python prints a list of its turns, as in the published frames."""
    rows = range(len(table.prompt_ids))
    columns: dict[str, list[object]] = {
        "sample_id": list(table.prompt_ids),
        "prompt": [repr([text]) for text in table.texts],
        "eval_name": list(table.categories),
    }
    for expert, name in enumerate(table.experts):
        columns[name] = [cell(table.scores, prompt, expert) for prompt in rows]
        columns[name + RESPONSE] = [""] * len(rows)
        columns[name + COST] = [cell(table.cost_usd, prompt, expert) for prompt in rows]
    columns[ORACLE] = [oracle(table, prompt) for prompt in rows]
    return columns


def oracle(table: OutcomeTable, prompt: int) -> str:
    """The best expert, the cheapest of several (unknown costs last); `no_model_correct` when all scores are 0."""
    scores = np.nan_to_num(table.scores[prompt], nan=-1.0)
    if scores.max() <= 0:
        return NONE_CORRECT
    costs = np.nan_to_num(table.cost_usd[prompt], nan=np.inf)
    return table.experts[int(np.lexsort((costs, -scores))[0])]
