"""Outcome tables of one benchmark, one metric and one kind of labels, taken from those that hold several."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coe.training.datasets.outcome_rows import ANSWERS_FILE, MODELS_FILE, PROMPTS_FILE, SCORES_FILE


def write_chosen(
    source: Path, out: Path, *, benchmark: str | None = None, metric: str | None = None, category: str = "category"
) -> Path:
    """Writes the prompts of a benchmark, labelled by another column, with their scores by a metric; None keeps all."""
    out.mkdir(parents=True, exist_ok=True)
    prompts = rows_of(pq.read_table(source / PROMPTS_FILE), "benchmark", benchmark)
    labels = prompts[category]
    pq.write_table(prompts.drop_columns("category").append_column("category", labels), out / PROMPTS_FILE)
    for name, wanted in ((SCORES_FILE, metric), (ANSWERS_FILE, None)):
        if (source / name).is_file():
            kept = pq.read_table(source / name)
            kept = kept.filter(pc.is_in(kept["prompt_id"], prompts["prompt_id"].combine_chunks()))
            pq.write_table(rows_of(kept, "metric", wanted), out / name)
    for models in (source.parent / MODELS_FILE, source / MODELS_FILE):
        if models.is_file():
            shutil.copyfile(models, out / MODELS_FILE)
    return out


def rows_of(table: pa.Table, column: str, value: str | None) -> pa.Table:
    return table if value is None else table.filter(pc.equal(table[column], value))
