"""Tables of one benchmark and one metric out of those that hold several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.outcome_tables import write_chosen
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.datasets.outcomes import read_outcomes
from tests.eval.routing.trial_data import SIZES, table


def test_a_benchmark_a_metric_and_a_column_of_labels_are_chosen(tmp_path: Path) -> None:
    made = table([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]], ["a", "b", "a"], "fit")
    write_outcomes(replace(made, answers=None), tmp_path / "all")
    prompts, scores = (tmp_path / "all" / f"{name}.parquet" for name in ("prompts", "scores"))
    more = {"benchmark": ["x", "y", "x"], "language": ["en", "de", "fr"]}
    known = pq.read_table(prompts)
    for name, values in more.items():
        known = known.append_column(name, pa.array(values))
    pq.write_table(known, prompts)
    judged = pq.read_table(scores)
    other = judged.set_column(judged.column_names.index("metric"), "metric", pa.array(["judge"] * len(judged)))
    pq.write_table(pa.concat_tables([judged, other]), scores)
    folder = write_chosen(tmp_path / "all", tmp_path / "one", benchmark="x", metric="acc", category="language")
    found = read_outcomes(folder, experts=["maths", "law"])
    assert found.prompt_ids == ("fit0", "fit2")
    assert found.categories == ("en", "fr")
    assert found.scores.tolist() == made.scores[[0, 2], 1:].tolist()
    assert found.metric == "acc"
    assert found.active_params_b == {name: SIZES[name] for name in ("maths", "law")}
