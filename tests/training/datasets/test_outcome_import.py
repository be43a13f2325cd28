"""`coe outcomes import`: what is read of files, what each malformed one is told, and what a person sees."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coe.base.errors import DataError
from coe.cli.command_line import run
from coe.training.datasets.outcome_import import (
    ImportOptions,
    Reasons,
    bounds_of,
    describe_reasons,
    read_scores,
    table_of_rows,
)
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.datasets.outcomes import read_outcomes
from coe.training.types import OutcomeTable

Rows = list[dict[str, Any]]

MATHS, BOOKS = "What is 2 + 2?", "Who wrote “Faust”?\nOne name."
SCORES = {("q1", "large"): 1.0, ("q1", "small"): 0.5, ("q2", "large"): 1.0, ("q2", "small"): 0.0}


def flat() -> Rows:
    return [
        {
            "prompt_id": prompt,
            "prompt": {"q1": MATHS, "q2": BOOKS}[prompt],
            "category": {"q1": "math", "q2": "books"}[prompt],
            "model": model,
            "score": score,
            "metric": "exact",
            "output_tokens": 12,
            "cost_usd": 0.25,
            "latency_ms": 150.0,
        }
        for (prompt, model), score in SCORES.items()
    ]


def dump(path: Path, rows: Rows) -> None:
    """A CSV or Parquet file lacks a column in every row or in none, and a column of Parquet has one type."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    else:
        columns = {name: [row[name] for row in rows] for name in names}
        kinds = {name: {type(value) for value in column if value is not None} for name, column in columns.items()}
        pq.write_table(pa.table({n: [*map(str, c)] if len(kinds[n]) > 1 else c for n, c in columns.items()}), path)


def read(*files: object, **options: Any) -> tuple[OutcomeTable, Reasons]:
    found = ImportOptions(**options)
    bounds = None if found.score_range is None else bounds_of(found.score_range)
    return table_of_rows(read_scores([str(file) for file in files], found), "quiz", bounds)


def refused(file: Path, change: Callable[[Rows], object] = lambda rows: None) -> str:
    rows = flat()
    change(rows)
    dump(file, rows)
    with pytest.raises(DataError) as caught:
        read(file)
    return str(caught.value)


@pytest.fixture(params=["scores.jsonl", "scores.csv", "scores.parquet"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_what_is_imported_is_read_back_from_its_folder(file: Path, tmp_path: Path) -> None:
    dump(file, flat())
    table, left_out = read(file)
    assert (table.experts, table.categories, table.source, left_out) == (
        ("large", "small"),
        ("math", "books"),
        "quiz",
        {},
    )
    assert table.texts == (MATHS, BOOKS)
    assert table.scores.tolist() == [[1.0, 0.5], [1.0, 0.0]]
    write_outcomes(table, tmp_path / "out")
    again = read_outcomes(tmp_path / "out")
    for name in ("prompt_ids", "texts", "categories", "splits", "experts", "metric", "source"):
        assert getattr(again, name) == getattr(table, name), name
    for name in ("scores", "cost_usd", "output_tokens", "latency_ms"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name), name)


def test_half_a_file_and_an_empty_one_are_refused(file: Path) -> None:
    dump(file, flat())
    for content in (file.read_bytes()[:-9], b""):  # of a CSV file, that takes the last cell
        file.write_bytes(content)
        with pytest.raises(
            DataError, match=f"{re.escape(str(file))}: (row 4: )?(cannot be read|is not JSON|holds no row)"
        ):
            read(file)


@pytest.mark.parametrize("name", ["prompt", "category", "model", "score"])
def test_a_missing_field_is_named_with_its_row(file: Path, name: str) -> None:
    row = 2 if file.suffix == ".jsonl" else 1  # a column is missing in every row, so the first tells
    assert f"row {row}, field '{name}': is missing" in refused(file, lambda rows: rows[1].pop(name))


@pytest.mark.parametrize("wrong", ["high", {"value": [1]}], ids=["text", "object"])
def test_a_score_that_is_no_number_or_out_of_range_is_refused(file: Path, wrong: object) -> None:
    assert "row 2, field 'score': must be a number; got" in refused(file, lambda rows: rows[1].update(score=wrong))
    assert "row 2, field 'score': 7 is not allowed; expected 0 to 1" in refused(file, lambda r: r[1].update(score=7))


def test_scores_are_rescaled_from_a_named_range(file: Path) -> None:
    dump(file, [row | {"score": 5 * row["score"]} for row in flat()])
    assert read(file, score_range="0:5")[0].scores.tolist() == [[1.0, 0.5], [1.0, 0.0]]


def test_a_row_without_a_score_is_counted_not_dropped_silently(file: Path) -> None:
    rows = flat()
    rows[1]["score"] = None
    dump(file, rows)
    table, left_out = read(file)
    assert describe_reasons(left_out) == [f"left out: 1 x no score (first: {file}: row 2)"]
    assert np.isnan(table.scores).sum() == 1


def test_a_pair_that_is_scored_twice_is_refused(file: Path) -> None:
    message = refused(file, lambda rows: rows.append(rows[1]))
    assert "row 5: 'q1' and 'small' were scored already at" in message


def test_rows_of_router_arena_are_refused(file: Path) -> None:
    assert "never used for fitting" in refused(file, lambda rows: [row.update({"global index": "x"}) for row in rows])


def test_one_of_several_metrics_must_be_chosen(file: Path) -> None:
    judged = [row | {"metric": "judge", "score": 0.25} for row in flat()]
    dump(file, [*flat(), *judged])
    with pytest.raises(DataError, match="several metrics; import one of: exact, judge"):
        read(file)
    assert set(read(file, metric="judge")[0].scores.ravel().tolist()) == {0.25}
    with pytest.raises(DataError, match="no score was found; left out: 8 x a score by another metric than 'nothing'"):
        read(file, metric="nothing")


def test_samples_of_lm_eval_are_read_by_names_of_fields(tmp_path: Path) -> None:
    for model, share in (("large", 1.0), ("small", 0.5)):
        samples = [
            {"doc_id": i, "doc": {"question": text}, "arguments": {"gen_args_0": {"arg_0": f"<s>{text}"}},
             "filter": name, "exact_match": share * (name == "strict-match")}
            for i, text in enumerate((MATHS, BOOKS)) for name in ("strict-match", "flexible-extract")
        ]  # fmt: skip
        dump(tmp_path / f"{model}.jsonl", samples)
    names = ["prompt_id=doc_id", "prompt=doc.question", "score=exact_match", "metric=filter"]
    files = [f"{model}={tmp_path}/{model}.jsonl" for model in ("small", "large")]
    table = read(*files, field=names, category="quiz", metric="strict-match")[0]
    assert (table.experts, table.texts, table.categories) == (("large", "small"), (MATHS, BOOKS), ("quiz", "quiz"))
    assert table.scores.tolist() == [[1.0, 0.5], [1.0, 0.5]]


def test_fields_may_have_other_names_and_chats(tmp_path: Path) -> None:
    rows = [
        {
            "chat": [{"role": "system", "content": "Be short."}, {"role": "user", "content": f"question {i}"}],
            "who": m,
            "mark": i + 3,
            "meta": {"topic": "t"},
            "id": i,
        }
        for i in (0, 1)
        for m in ("a", "b")
    ]
    dump(tmp_path / "x.jsonl", rows)
    names = ["prompt=chat", "model=who", "score=mark", "prompt_id=id", "category=meta.topic"]
    table = read(tmp_path / "x.jsonl", field=names, score_range="1:5")[0]
    assert (table.prompt_ids, table.texts, table.experts) == (("0", "1"), ("question 0", "question 1"), ("a", "b"))
    assert table.categories == ("t", "t")
    assert table.scores.tolist() == [[0.5, 0.5], [0.75, 0.75]]


def test_booleans_are_scores(file: Path) -> None:
    dump(file, [row | {"score": row["score"] > 0} for row in flat()])
    assert read(file)[0].scores.tolist() == [[1.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("prompt,prompt\n", "column 'prompt' appears twice in the header"),
        (
            "prompt,category,model,score\nx,c,m\n",
            "row 1: cannot be read, .*more or fewer cells than the 4 of the header",
        ),
        ("prompt,category,model,score\nx,c,m,1,9\n", "row 1: cannot be read, .*more or fewer cells than the 4"),
        ('prompt,category,model,score\n"x,c,m,1\n', "row 1: cannot be read, or only half of it"),
        ("prompt,category,model,score\n", "holds no row"),
        ("prompt,category,model,score\n\n\n", "x.csv: holds no row"),
        ("prompt,category,model,score\nx,c,m,\n", "no score was found; left out: 1 x no score"),
        ("prompt,category,model,score\nx,c,m,inf\n", "row 1, field 'score': must be a finite number; got 'inf'"),
        ("prompt,category,model,score\n ,c,m,1\n", "row 1, field 'prompt': must not be blank"),
        ("prompt,category,model,score,cost_usd\nx,c,m,1,-1\n", "field 'cost_usd': must be at least 0; got '-1'"),
        (
            "prompt,category,model,score,split\nx,c,m,1,dev\n",
            "field 'split': unknown value; .* test, train, valid; got",
        ),
        (
            "prompt,category,model,score\nx,c,m,1\nx,d,n,1\n",
            "row 2: prompt '[0-9a-f]{16}' has another category than at",
        ),
        ("prompt,category,model,score,prompt_id\nx,c,m,1,p\ny,c,n,1,p\n", "row 2: prompt 'p' has another text than at"),
    ],
)
def test_a_malformed_csv_is_named_with_row_and_field(content: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DataError, match=complaint):
        read(tmp_path / "x.csv")


def test_excel_marks_long_prompts_and_line_breaks_are_read(tmp_path: Path) -> None:
    long = "a line\r\nand, another " + "x" * 200_000
    (tmp_path / "x.csv").write_bytes(f'\ufeffprompt,category,model,score\r\n"{long}",c,m,1\r\n'.encode())
    assert read(tmp_path / "x.csv")[0].texts == (long,)


def test_what_is_no_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"x.jsonl: is not UTF-8 text"):
        read(tmp_path / "x.jsonl")


def test_no_prompt_text_is_in_a_complaint(tmp_path: Path) -> None:
    secret = "my password is hunter2 " * 10
    assert "hunter2" not in refused(tmp_path / "x.jsonl", lambda rows: rows[0].update(prompt=secret, score=secret))


def test_missing_files_and_others_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing.csv: no such file"):
        read(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match=r"frame.pkl: ending '.pkl' is not allowed; expected .csv, .jsonl, .parquet"):
        read(tmp_path / "frame.pkl")


def coe(name: str, *arguments: object) -> int:
    return run(name, [str(argument) for argument in arguments])


def test_what_was_read_and_what_was_left_out_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = flat()
    records[3]["score"] = None
    dump(tmp_path / "x.csv", records)
    assert coe("outcomes import", tmp_path / "x.csv", "--out", tmp_path / "quiz") == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 scores by exact: 2 prompts in 2 categories, 2 models",
        "  large: mean 1.000 of 2",
        "  small: mean 0.500 of 1",
        f"left out: 1 x no score (first: {tmp_path}/x.csv: row 4)",
        "1 prompts lack a score of some model; comparisons of all models leave these out",
        f"wrote {tmp_path}/quiz",
    ]
    assert read_outcomes(tmp_path / "quiz", keep_partial=True).source == "quiz"


def test_a_table_that_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path / "x.csv", flat())
    arguments = (tmp_path / "x.csv", "--out", tmp_path / "quiz")
    assert coe("outcomes import", *arguments) == 0
    before = (tmp_path / "quiz" / "scores.parquet").read_bytes()
    assert coe("outcomes import", *arguments) == 1
    assert "there is an outcome table already" in capsys.readouterr().err
    assert (tmp_path / "quiz" / "scores.parquet").read_bytes() == before


def test_nothing_is_written_when_a_file_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path / "x.csv", [record | {"score": 80} for record in flat()])
    arguments = (tmp_path / "x.csv", "--out", tmp_path / "quiz")
    assert coe("outcomes import", *arguments) == 1
    found = capsys.readouterr().err
    assert "x.csv: row 1, field 'score': 80 is not allowed; expected 0 to 1; name the range of these scores" in found
    assert "Traceback" not in found
    assert not (tmp_path / "quiz").exists()
    assert coe("outcomes import", *arguments, "--score-range", "0:100") == 0
    assert read_outcomes(tmp_path / "quiz").scores.max() == pytest.approx(0.8)


def test_a_table_is_not_written_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path / "x.csv", flat())
    assert coe("outcomes import", tmp_path / "x.csv", "--out", tmp_path / "x.csv") == 1
    assert "x.csv is not a folder; name another" in capsys.readouterr().err


def test_half_a_character_becomes_a_replacement_in_texts_and_names(tmp_path: Path) -> None:
    """Python's JSON writes a surrogate as an escape, and JSON readers take it; UTF-8 cannot hold one."""
    halves = {"prompt": "say \ud83d now", "category": "a\udc00", "model": "m\ud800", "metric": "x\udfff"}
    dump(tmp_path / "x.jsonl", [record | halves for record in flat()[:1]])
    assert coe("outcomes import", tmp_path / "x.jsonl", "--out", tmp_path / "quiz") == 0
    table = read_outcomes(tmp_path / "quiz")
    assert table.texts == ("say \ufffd now",)
    assert (table.categories, table.experts, table.metric) == (("a\ufffd",), ("m\ufffd",), "x\ufffd")


def test_an_amount_that_a_table_cannot_hold_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path / "x.csv", [record | {"cost_usd": 1e39} for record in flat()])
    assert coe("outcomes import", tmp_path / "x.csv", "--out", tmp_path / "quiz") == 1
    assert "row 1, field 'cost_usd': must be at most 3.4028" in capsys.readouterr().err
    assert not (tmp_path / "quiz").exists()


def test_nothing_is_written_under_a_name_that_is_not_utf_8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Python reads a byte of the command line that is not UTF-8 as a surrogate."""
    dump(tmp_path / "x.csv", flat()[:1])
    named = f"mine\udcff={tmp_path}/x.csv"
    assert coe("outcomes import", named, "--out", tmp_path / "q") == 1
    found = capsys.readouterr().err
    assert "must be text that UTF-8 can hold" in found
    assert "Traceback" not in found
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (("--field", "score"), "--field: 'score' is not allowed; expected OURS=THEIRS"),
        (("--field", "mark=score"), "--field: unknown name 'mark'"),
        (("--score-range", "0-5"), "--score-range: expected LOW:HIGH, the first below the second, such as 0:10"),
        (("--score-range", "5:0"), "(got '5:0')"),
        (("--score-range", ""), "(got '')"),
        (("--score-range", "0:inf"), "(got '0:inf')"),
        (("--category", ""), "--category: must not be blank (got '')"),
        (("--category", " "), "--category: must not be blank (got ' ')"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    option: tuple[str, ...], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump(tmp_path / "x.csv", flat())
    assert coe("outcomes import", tmp_path / "x.csv", "--out", tmp_path / "q", *option) == 1
    assert complaint in capsys.readouterr().err
