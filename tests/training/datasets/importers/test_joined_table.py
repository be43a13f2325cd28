"""A join of both files of an outcome table, as docs/formats.md describes it, is imported unchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from training.datasets.import_formats import ImportOptions, find_files, load_importer, read_outcomes_of
from training.datasets.outcomes import write_outcomes
from training.types import OutcomeTable


def small_table() -> OutcomeTable:
    nan = float("nan")
    scores = np.array([[1.0, 1.0, 0.5], [0.0, nan, 0.0], [0.0, 0.25, nan]], dtype=np.float32)
    cost = np.array([[0.5, 0.25, 0.125], [1, nan, 1], [1, nan, 1]], dtype=np.float32)
    return OutcomeTable(
        prompt_ids=("p1", "p2", "p3"),
        texts=("it's one", "two", "three"),
        categories=("a", "a", "b"),
        splits=("train", "train", "test"),
        experts=("big", "mid", "small"),
        scores=scores,
        cost_usd=cost,
        output_tokens=np.full_like(scores, 8.0),
        latency_ms=np.full_like(scores, 500.0),
        metric="exact",
        source="made",
    )


def test_json_lines_that_join_both_files_of_a_table_are_imported_unchanged(tmp_path: Path) -> None:
    table = replace(small_table(), texts=("it's one", "zwei\n\u2028drei", '=cmd|" \\ ü😀'))
    write_outcomes(table, tmp_path / "mine")
    prompts = {row["prompt_id"]: row for row in pq.read_table(tmp_path / "mine" / "prompts.parquet").to_pylist()}
    with (tmp_path / "scores.jsonl").open("w") as out:
        for score in pq.read_table(tmp_path / "mine" / "scores.parquet").to_pylist():
            prompt = prompts[score["prompt_id"]]
            out.write(json.dumps(prompt | score | {"prompt": json.loads(prompt["messages"])}) + "\n")
    importer = load_importer("flat")
    files = find_files(importer, [str(tmp_path / "scores.jsonl")])
    again, _ = read_outcomes_of(importer, files, ImportOptions(), "made")
    for name in ("prompt_ids", "texts", "categories", "splits", "experts", "metric", "source"):
        assert getattr(again, name) == getattr(table, name), name
    np.testing.assert_array_equal(again.scores, table.scores)
    is_known = np.isfinite(table.scores)
    for name in ("cost_usd", "output_tokens", "latency_ms"):
        np.testing.assert_array_equal(getattr(again, name)[is_known], getattr(table, name)[is_known])
