"""All outcome tables of a data folder as one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coe.base.errors import DataError
from coe.training.datasets.outcome_rows import PROMPTS_FILE, SCORES_FILE, write_outcomes
from coe.training.datasets.outcomes import read_outcome_folders, read_outcomes
from coe.training.types import OutcomeTable
from tests.outcome_tables import scored_table


def table(
    experts: tuple[str, ...], scores: list[list[float]], *, start: int = 0, metric: str = "graded"
) -> OutcomeTable:
    values = np.array(scores, np.float32)
    rows = range(start, start + len(values))
    names = {"prompt_ids": tuple(f"p{i}" for i in rows), "texts": tuple(f"question {i}" for i in rows)}
    measured = {"cost_usd": values + 1, "output_tokens": values + 2, "latency_ms": values + 3}
    return scored_table(values, ("facts",) * len(values), experts, metric=metric, **names, **measured)


def write(folder: Path, outcomes: OutcomeTable, at: float) -> None:
    write_outcomes(outcomes, folder)
    os.utime(folder / SCORES_FILE, (at, at))


def test_a_probed_expert_joins_those_of_the_first_table(tmp_path: Path) -> None:
    write(tmp_path / "probes", table(("left", "right"), [[1, 0], [0, 1], [1, 1]]), 1.0)
    write(tmp_path / "probe-tutor", table(("tutor",), [[1], [0]]), 2.0)
    found = read_outcome_folders(tmp_path, ("left", "tutor", "right", "unasked"))
    assert found.experts == ("left", "tutor", "right")
    np.testing.assert_array_equal(found.scores, [[1, 1, 0], [0, 0, 1], [1, np.nan, 1]])
    np.testing.assert_array_equal(found.latency_ms[:, 1], [4, 3, np.nan])
    assert found.prompt_ids == ("p0", "p1", "p2")


def test_what_was_graded_last_counts(tmp_path: Path) -> None:
    """By the time of the file, not by the folder's name."""
    write(tmp_path / "z", table(("left",), [[1], [1]]), 1.0)
    write(tmp_path / "a", table(("left",), [[0]]), 2.0)
    found = read_outcome_folders(tmp_path, ("left",))
    assert found.scores[:, 0].tolist() == [0, 1]
    assert found.cost_usd[:, 0].tolist() == [1, 2]


def test_answers_to_one_prompt_in_two_tables_are_those_of_the_last(tmp_path: Path) -> None:
    first = replace(table(("left", "right"), [[1, 0], [0, 1]]), answers=np.array([[0, 0], [0, 1]]))
    write(tmp_path / "a", first, 1.0)
    write(tmp_path / "b", replace(table(("right",), [[0]], start=1), answers=np.array([[0]])), 2.0)
    write(tmp_path / "c", table(("left",), [[1]], start=5), 3.0)
    found = read_outcome_folders(tmp_path, ("left", "right"))
    assert found.answers.tolist() == [[0, 0], [-2, 0], [-2, -2]]


def test_other_metrics_and_other_questions_of_the_same_id_are_prompts_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "a", table(("left",), [[1]]), 1.0)
    write(tmp_path / "b", table(("left",), [[0]], metric="judge"), 2.0)
    other = replace(table(("left",), [[0]]), texts=("something else",))
    write(tmp_path / "c", other, 3.0)
    found = read_outcome_folders(tmp_path, ("left",))
    assert found.scores[:, 0].tolist() == [1, 0, 0]
    assert len(set(found.prompt_ids)) == 3


def test_one_table_is_read_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, table(("left", "right"), [[1, 0]]), 1.0)
    write(tmp_path / "inside", table(("left",), [[0]]), 2.0)
    assert read_outcome_folders(tmp_path, ("right", "left")).experts == ("right", "left")
    assert read_outcome_folders(tmp_path, ("left",)).scores.tolist() == [[1]]


def test_tables_of_other_models_and_folders_without_a_table_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path / "probes", table(("left",), [[1]]), 1.0)
    write(tmp_path / "benchmark", table(("gpt-x",), [[1]]), 2.0)
    (tmp_path / "half-asked").mkdir()
    (tmp_path / "half-asked" / "journal.jsonl").touch()
    assert read_outcome_folders(tmp_path, ("left",)).experts == ("left",)
    with pytest.raises(DataError, match=r"no expert of experts.yaml was graded there \(graded: gpt-x, left"):
        read_outcome_folders(tmp_path, ("nobody",))


def test_half_a_table_is_named_and_so_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no outcome table"):
        read_outcome_folders(tmp_path / "nothing", ("left",))
    write(tmp_path / "probes", table(("left",), [[1]]), 1.0)
    (tmp_path / "probes" / PROMPTS_FILE).unlink()
    with pytest.raises(DataError, match=r"probes.prompts.parquet: no such file"):
        read_outcome_folders(tmp_path, ("left",))


def test_prompts_of_two_tables_are_joined_where_only_one_knows_answers() -> None:
    first = replace(table(("left",), [[1], [0]]), answers=np.array([[0], [0]]))
    both = first.joined(table(("left",), [[1]], start=5))
    assert both.answers[:, 0].tolist() == [0, 0, -2]
    assert both.scores[:, 0].tolist() == [1, 0, 1]
    assert len(both.texts) == 3


def test_replies_to_prompts_with_tools_are_compared_by_their_calls(tmp_path: Path) -> None:
    tools = [{"name": "area", "parameters": {"type": "dict", "properties": {"base": {"type": "float"}}}}]
    meta, messages = json.dumps({"tools": tools}), json.dumps([{"role": "user", "content": "x"}])
    prompts = [{"prompt_id": "p", "messages": messages, "category": "a", "meta": meta}]
    replies = {"a": "[area(base=3)]", "b": '[{"area": "{\\"base\\": 3.0}"}]', "c": "[area(base=4)]", "d": "None fits."}
    scores = [{"prompt_id": "p", "model": name, "score": 1.0} for name in replies]
    answers = [{"prompt_id": "p", "model": name, "answer": said} for name, said in replies.items()]
    for name, rows in {"prompts": prompts, "scores": scores, "answers": answers}.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    assert read_outcomes(tmp_path).answers.tolist() == [[0, 0, 1, 2]]
