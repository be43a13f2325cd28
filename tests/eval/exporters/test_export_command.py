"""`coe outcomes export` and `coe eval arena` as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from router.cli import find_commands, run
from training.datasets.outcomes import read_outcomes, write_outcomes
from training.types import OutcomeTable


def coe(name: str, *arguments: object) -> int:
    return run(name, find_commands()[name], [str(argument) for argument in arguments])


def test_a_table_goes_out_and_comes_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = np.array([[1.0, 0.25], [0.0, 0.75]], dtype=np.float32)
    unknown = np.full_like(scores, np.nan)
    table = OutcomeTable(
        ("p", "q"),
        ("one", "two"),
        ("a", "b"),
        ("train", "test"),
        ("x", "y"),
        scores,
        unknown,
        unknown,
        unknown,
        "m",
        "s",
    )
    write_outcomes(table, tmp_path / "in")
    out = tmp_path / "new" / "scores.csv"
    assert coe("outcomes export", "--format", "csv", "--outcomes", tmp_path / "in", "--out", out) == 0
    assert capsys.readouterr().out == f"wrote 4 rows to {out}\n"
    assert coe("outcomes import", "--format", "csv", out, "--out", tmp_path / "back") == 0
    assert coe("outcomes export", "--format", "csv", "--outcomes", tmp_path / "in", "--out", tmp_path / "new") == 1
    assert f"--out {tmp_path}/new: is a folder; name a file" in capsys.readouterr().err
    again = read_outcomes(tmp_path / "back")
    np.testing.assert_array_equal(again.scores, scores)
    assert again.splits == ("train", "test")


def test_the_arena_score_is_printed_with_what_is_not_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"global index": "A_1", "prediction": "m", "accuracy": 1.0, "cost": 0.002},
        {"global index": "A_2", "prediction": "m", "accuracy": None, "cost": None},
    ]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    assert coe("eval arena", tmp_path / "p.json") == 0
    assert capsys.readouterr().out.splitlines() == [
        "RouterArena score 0.9148: accuracy 1.0000 of 1, 1.0000 USD per 1,000 queries",
        "1 predictions have no accuracy and are not in its mean",
        "1 predictions have no cost and count as free",
    ]


def test_a_wrong_name_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--format", "router_arena", "--router", tmp_path, "--prompts", tmp_path, "--out", tmp_path / "p.json")
    assert coe("outcomes export", *arguments, "--name", "small") == 1
    assert "--name: 'small' is not allowed; expected EXPERT=THEIRS" in capsys.readouterr().err
