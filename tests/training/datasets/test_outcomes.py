"""Outcome tables: what is read from well-formed files, and what each malformed one is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coe.base.errors import DataError
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.datasets.outcomes import read_outcomes
from coe.training.types import split_of

Rows = list[dict[str, Any]]


def ask(text: str) -> str:
    return json.dumps([{"role": "user", "content": "earlier"}, {"role": "user", "content": text}])


def prompt_rows() -> Rows:
    return [
        {"prompt_id": "p1", "benchmark": "x", "category": "math", "split": "train", "messages": ask("one plus one")},
        {"prompt_id": "p2", "benchmark": "x", "category": "law", "split": "test", "messages": ask("who may sue")},
        {"prompt_id": "p3", "benchmark": "y", "category": "math", "split": "valid", "messages": ask("two plus two")},
    ]


def score_rows() -> Rows:
    scores = {("p1", "a"): 1.0, ("p1", "b"): 0.0, ("p2", "a"): 0.25, ("p2", "b"): 0.75, ("p3", "a"): 0.5}
    return [
        {"prompt_id": p, "model": m, "score": s, "metric": "acc", "output_chars": 40, "cost_usd": None}
        for (p, m), s in scores.items()
    ]


def save(folder: Path, prompts: Rows, scores: Rows) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(prompts), folder / "prompts.parquet")
    pq.write_table(pa.Table.from_pylist(scores), folder / "scores.parquet")
    return folder


def test_only_prompts_that_every_expert_answered_are_kept(tmp_path: Path) -> None:
    table = read_outcomes(save(tmp_path / "t", prompt_rows(), score_rows()))
    assert table.prompt_ids == ("p1", "p2")
    assert table.experts == ("a", "b")
    assert table.texts == ("one plus one", "who may sue")
    assert table.splits == ("train", "test")
    np.testing.assert_array_equal(table.scores, [[1.0, 0.0], [0.25, 0.75]])
    assert (table.metric, table.source, table.active_params_b) == ("acc", "t", {})


def test_partial_prompts_stay_on_request(tmp_path: Path) -> None:
    table = read_outcomes(save(tmp_path / "t", prompt_rows(), score_rows()), keep_partial=True)
    assert table.prompt_ids == ("p1", "p2", "p3")
    assert np.isnan(table.scores[2, 1])


def test_experts_are_chosen(tmp_path: Path) -> None:
    folder = save(tmp_path / "t", prompt_rows(), score_rows())
    assert read_outcomes(folder, experts=["b", "a"]).experts == ("b", "a")
    np.testing.assert_array_equal(read_outcomes(folder, experts=["b", "a"]).scores[0], [0.0, 1.0])


def test_missing_splits_come_from_the_hash(tmp_path: Path) -> None:
    prompts = [{k: v for k, v in row.items() if k != "split"} for row in prompt_rows()]
    table = read_outcomes(save(tmp_path / "t", prompts, score_rows()))
    assert table.splits == tuple(split_of(text) for text in table.texts)


def test_cost_is_recorded_or_estimated_from_models_above_the_folder(tmp_path: Path) -> None:
    models = [{"model": "a", "params_active_b": 7.0, "price_in_per_m": 1.0, "price_out_per_m": 2.0}]
    pq.write_table(pa.Table.from_pylist(models), tmp_path / "models.parquet")
    scores = score_rows()
    scores[1]["cost_usd"] = 0.125
    table = read_outcomes(save(tmp_path / "t", prompt_rows(), scores))
    assert table.active_params_b == {"a": 7.0}
    assert table.is_cost_estimated
    assert table.cost_usd[0, 0] == pytest.approx((len("one plus one") / 4 * 1.0 + 40 / 4 * 2.0) / 1e6)
    assert table.cost_usd[0, 1] == 0.125
    assert np.isnan(table.cost_usd[1, 1])


def test_metrics_may_differ_between_prompts_but_not_on_one(tmp_path: Path) -> None:
    by_prompt = [row | {"metric": f"metric of {row['prompt_id']}"} for row in score_rows()]
    assert (
        read_outcomes(save(tmp_path / "t", prompt_rows(), by_prompt)).metric
        == "metric of p1 + metric of p2 + metric of p3"
    )
    judged = [*score_rows(), *({**row, "metric": "judge", "score": 0.1} for row in score_rows())]
    folder = save(tmp_path / "u", prompt_rows(), judged)
    with pytest.raises(DataError, match="several metrics; import one of: acc, judge"):
        read_outcomes(folder)


def drop(column: str) -> Callable[[Rows], Rows]:
    return lambda rows: [{k: v for k, v in row.items() if k != column} for row in rows]


def put(row: int, column: str, value: object) -> Callable[[Rows], Rows]:
    return lambda rows: [r | {column: value} if i == row else r for i, r in enumerate(rows)]


@pytest.mark.parametrize(
    ("in_prompts", "in_scores", "complaint"),
    [
        (drop("category"), None, r"prompts.parquet: row 1, field 'category': is missing"),
        (None, drop("model"), r"scores.parquet: row 1, field 'model': is missing"),
        (put(1, "category", None), None, r"prompts.parquet: row 2, field 'category': must be text; got null"),
        (put(1, "prompt_id", "p1"), None, r"prompts.parquet: row 2, field 'prompt_id': 'p1' is there already"),
        (put(2, "messages", "[{"), None, r"prompts.parquet: row 3, field 'messages': is not JSON"),
        (put(2, "messages", "[]"), None, r"row 3, field 'messages': holds no message of role 'user'"),
        (put(2, "messages", "5"), None, r"row 3, field 'messages': must be a text or a list of messages"),
        (put(2, "messages", "true"), None, r"row 3, field 'messages': must be a text or a list of messages"),
        (put(2, "messages", "NaN"), None, r"row 3, field 'messages': must be a text or a list of messages"),
        (put(2, "messages", "[" * 100_000), None, r"row 3, field 'messages': is not JSON, or only half of it"),
        (put(0, "messages", ask(" ")), None, r"row 1, field 'messages': must not be blank"),
        (put(0, "split", "tst"), None, r"row 1, field 'split': unknown value; did you mean 'test'"),
        (None, put(3, "score", 1.5), r"scores.parquet: row 4, field 'score': must be at most 1; got 1.5"),
        (None, put(3, "score", None), r"scores.parquet: row 4, field 'score': must be a number; got null"),
        (None, put(0, "cost_usd", -1.0), r"row 1, field 'cost_usd': must be at least 0; got -1"),
        (None, put(0, "cost_usd", np.inf), r"row 1, field 'cost_usd': must be a finite number; got inf"),
        (
            None,
            put(0, "output_tokens", 1e39),
            r"row 1, field 'output_tokens': must be at most 3.40282346639e\+38; got 1e\+39",
        ),
        (None, put(2, "prompt_id", "p9"), r"row 3, field 'prompt_id': 'p9' is not in prompts.parquet"),
        (None, lambda rows: [*rows, rows[1]], r"row 6: 'p1' and 'b' were scored already at .*scores.parquet: row 2"),
        (None, lambda rows: [r | {"score": "x"} for r in rows], r"field 'score': must be a number; got 'x'"),
        (
            None,
            lambda rows: [r for r in rows if r["model"] + r["prompt_id"] in ("ap1", "bp2")],
            r"no prompt has a score",
        ),
    ],
)
def test_a_malformed_table_is_named_with_file_row_and_column(
    tmp_path: Path,
    in_prompts: Callable[[Rows], Rows] | None,
    in_scores: Callable[[Rows], Rows] | None,
    complaint: str,
) -> None:
    prompts = in_prompts(prompt_rows()) if in_prompts else prompt_rows()
    scores = in_scores(score_rows()) if in_scores else score_rows()
    with pytest.raises(DataError, match=complaint):
        read_outcomes(save(tmp_path / "t", prompts, scores))


def test_a_table_without_prompts_and_text_that_is_not_utf_8_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "t", prompt_rows(), score_rows())
    prompts = pq.read_table(folder / "prompts.parquet")
    pq.write_table(prompts.slice(0, 0), folder / "prompts.parquet")
    with pytest.raises(DataError, match=r"prompts.parquet: holds no row"):
        read_outcomes(folder)
    foreign = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ab", b"\xff\xfe", b"c"], pa.binary()).buffers())
    pq.write_table(prompts.set_column(2, "category", foreign), folder / "prompts.parquet")
    with pytest.raises(DataError, match=r"prompts.parquet: is not UTF-8 text"):
        read_outcomes(folder)


def test_half_a_character_becomes_a_replacement_and_two_halves_stay_one(tmp_path: Path) -> None:
    prompts = prompt_rows()
    prompts[0]["messages"] = ask("cut \ud83d here and \U0001f600 not")
    table = read_outcomes(save(tmp_path / "t", prompts, score_rows()))
    assert table.texts[0] == "cut \ufffd here and \U0001f600 not"


def test_a_size_of_zero_or_none_is_unknown_and_an_infinite_one_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "t", prompt_rows(), score_rows())
    for sizes, known in (([0.0, 7.0], {"b": 7.0}), ([None, 7.0], {"b": 7.0})):
        pq.write_table(pa.table({"model": ["a", "b"], "params_active_b": sizes}), folder / "models.parquet")
        assert read_outcomes(folder).active_params_b == known
    pq.write_table(pa.table({"model": ["a", "b"], "params_active_b": [1.0, np.inf]}), folder / "models.parquet")
    with pytest.raises(
        DataError, match=r"models.parquet: row 2, field 'params_active_b': must be a finite number; got inf"
    ):
        read_outcomes(folder)


def test_nothing_of_a_table_is_written_that_cannot_be_written(tmp_path: Path) -> None:
    table = read_outcomes(save(tmp_path / "t", prompt_rows(), score_rows()))
    with pytest.raises(DataError, match=r"copy: a name or text of the table cannot be written as UTF-8"):
        write_outcomes(replace(table, experts=("a", "b\udcff")), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_unknown_names_get_a_suggestion(tmp_path: Path) -> None:
    folder = save(tmp_path / "t", prompt_rows(), [r | {"model": f"model-{r['model']}"} for r in score_rows()])
    with pytest.raises(DataError, match="unknown expert 'modl-a'; did you mean 'model-a'"):
        read_outcomes(folder, experts=["modl-a"])
    with pytest.raises(DataError, match="expert 'model-a' is named 2 times"):
        read_outcomes(folder, experts=["model-a", "model-a"])


def test_missing_and_foreign_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prompts.parquet: no such file"):
        read_outcomes(tmp_path)
    folder = save(tmp_path / "t", prompt_rows(), score_rows())
    (folder / "scores.parquet").write_bytes((folder / "scores.parquet").read_bytes()[:60])
    with pytest.raises(DataError, match=r"scores.parquet: cannot be read"):
        read_outcomes(folder)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    models = [{"model": "a", "params_active_b": 7.0, "price_in_per_m": 1.0, "price_out_per_m": 2.0}]
    pq.write_table(pa.Table.from_pylist(models), tmp_path / "models.parquet")
    table = read_outcomes(save(tmp_path / "t", prompt_rows(), score_rows()), keep_partial=True)
    write_outcomes(table, tmp_path / "copy")
    copy = read_outcomes(tmp_path / "copy", keep_partial=True)
    for name in ("scores", "cost_usd", "output_tokens", "latency_ms"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(table, name), err_msg=name)
    for name in ("prompt_ids", "texts", "categories", "splits", "experts", "metric", "source", "active_params_b"):
        assert getattr(copy, name) == getattr(table, name), name


def test_answers_are_numbered_by_prompt_and_written_as_they_are(tmp_path: Path) -> None:
    folder = save(tmp_path / "t", prompt_rows(), score_rows())
    assert read_outcomes(folder).answers is None
    given = [("p1", "a", "7"), ("p1", "b", "7"), ("p2", "a", "yes"), ("p2", "b", "no"), ("p3", "a", None)]
    rows = [{"prompt_id": p, "model": m, "answer": answer} for p, m, answer in [*given, ("p9", "a", "1")]]
    pq.write_table(pa.Table.from_pylist(rows), folder / "answers.parquet")
    table = read_outcomes(folder, keep_partial=True)
    assert table.answers.tolist() == [[0, 0], [0, 1], [-1, -2]]
    assert read_outcomes(folder, experts=["b"]).answers.tolist() == [[0], [0]]
    write_outcomes(table, tmp_path / "copy")
    copy = read_outcomes(tmp_path / "copy", keep_partial=True)
    assert copy.answers.tolist() == table.answers.tolist()
    pq.write_table(pa.Table.from_pylist([{"prompt_id": "p1", "model": "a"}]), folder / "answers.parquet")
    with pytest.raises(DataError, match=r"answers\.parquet: .*'answer'"):
        read_outcomes(folder)


def test_a_reply_s_characters_stand_for_tokens_that_nobody_counted(tmp_path: Path) -> None:
    rows = score_rows()
    rows[0]["output_tokens"], rows[0]["output_chars"] = 7.0, 400
    for row in rows[1:]:
        row["output_tokens"] = None
    table = read_outcomes(save(tmp_path / "t", prompt_rows(), rows), keep_partial=True)
    counted = table.output_tokens[np.isfinite(table.output_tokens)]
    assert sorted(set(counted.tolist())) == [7.0, 10.0]  # the others have 40 characters
