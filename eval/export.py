"""`coe outcomes export`: an outcome table as a file for another tool.

`flat` is CSV with one row per score, in the layout that `coe outcomes import` reads. `routerbench` is RouterBench's
frame: its answers stay empty, because an outcome table holds none.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from base.errors import ConfigError, DataError, allowed_values
from base.options import require_file
from base.progress import working
from base.visible_text import echo, without_formula
from router.types import FloatArray
from training.datasets.importers.flat import FIELDS
from training.datasets.importers.routerbench import COST, FRAME_COLUMNS, NONE_CORRECT, ORACLE, RESPONSE
from training.datasets.outcomes import read_outcomes
from training.types import OutcomeTable


def export_outcomes(
    format_name: Annotated[str, typer.Option("--format", help="flat (CSV) or routerbench")],
    outcomes: Annotated[Path, typer.Option(help="outcome table to write")],
    out: Annotated[Path, typer.Option(help="file to write")],
) -> None:
    """Write an outcome table for another tool."""
    with working(f"writing {out} ..."):
        rows = export(format_name, outcomes, out)
    echo(f"wrote {rows} rows to {out}")


def export(format_name: str, outcomes: Path, out: Path) -> int:
    """Writes the outcome table of a folder, prompts included that some expert has no score on, as a file.

    Returns:
        The number of rows written.

    Raises:
        ConfigError: unknown format or ending, or `out` cannot be written.
        DataError: the table is malformed, or the format cannot hold it.
    """
    if format_name not in FORMATS:
        raise ConfigError(f"--format: unknown format '{format_name}'{allowed_values(format_name, FORMATS)}")
    require_file(out)
    table = read_outcomes(outcomes, keep_partial=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    return FORMATS[format_name](table, out)


def write_flat(table: OutcomeTable, out: Path) -> int:
    rows = list(flat_scores(table))
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows({name: without_formula(cell) for name, cell in row.items()} for row in rows)
    return len(rows)


def write_routerbench(table: OutcomeTable, out: Path) -> int:
    suffix = out.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise ConfigError(f"--out {out}: ending '{suffix}' is not allowed; expected .parquet or .csv")
    parts = [f"{name}{part}" for name in table.experts for part in (RESPONSE, COST)]
    for name in set(table.experts) & {*FRAME_COLUMNS, *parts}:
        raise DataError(f"{out}: expert '{name}' has the name of a column of this format; rename it")
    columns = routerbench_frame(table)
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), out, compression="zstd")
    else:
        with out.open("w", encoding="utf-8", newline="") as file:
            rows = [tuple(columns), *zip(*columns.values(), strict=True)]
            csv.writer(file).writerows([without_formula(each) for each in row] for row in rows)
    return len(table.prompt_ids)


FORMATS: Mapping[str, Callable[[OutcomeTable, Path], int]] = {
    "flat": write_flat,
    "routerbench": write_routerbench,
}


def flat_scores(table: OutcomeTable) -> Iterator[dict[str, str | float | None]]:
    """One row per score, by prompt; None where a number is unknown."""
    for prompt, expert in np.argwhere(np.isfinite(table.scores)):
        yield {
            "prompt_id": table.prompt_ids[prompt],
            "prompt": table.texts[prompt],
            "category": table.categories[prompt],
            "split": table.splits[prompt],
            "model": table.experts[expert],
            "score": cell(table.scores, prompt, expert),
            "metric": table.metric,
            "output_tokens": cell(table.output_tokens, prompt, expert),
            "cost_usd": cell(table.cost_usd, prompt, expert),
            "latency_ms": cell(table.latency_ms, prompt, expert),
        }


def cell(values: FloatArray, prompt: int, expert: int) -> float | None:
    """A number of a table; None where it is unknown."""
    value = float(values[prompt, expert])
    return None if np.isnan(value) else value


def routerbench_frame(table: OutcomeTable) -> dict[str, list[object]]:
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
    columns[ORACLE] = [best_and_cheapest(table, prompt) for prompt in rows]
    return columns


def best_and_cheapest(table: OutcomeTable, prompt: int) -> str:
    """The best expert, the cheapest of several (unknown costs last); `no_model_correct` when all scores are 0."""
    scores = np.nan_to_num(table.scores[prompt], nan=-1.0)
    if scores.max() <= 0:
        return NONE_CORRECT
    costs = np.nan_to_num(table.cost_usd[prompt], nan=np.inf)
    return table.experts[int(np.lexsort((costs, -scores))[0])]
