"""`coe outcomes export` as a person runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coe.command_line import run
from tests.outcome_tables import scored_table
from training.datasets.outcomes import read_outcomes, write_outcomes


def coe(name: str, *arguments: object) -> int:
    return run(name, [str(argument) for argument in arguments])


def test_a_table_goes_out_and_comes_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = scored_table([[1.0, 0.25], [0.0, 0.75]], ("a", "b"), ("x", "y"), splits=("train", "test"))
    write_outcomes(table, tmp_path / "in")
    out = tmp_path / "new" / "scores.csv"
    assert coe("outcomes export", "--format", "flat", "--outcomes", tmp_path / "in", "--out", out) == 0
    assert capsys.readouterr().out == f"wrote 4 rows to {out}\n"
    assert coe("outcomes import", "--format", "flat", out, "--out", tmp_path / "back") == 0
    assert coe("outcomes export", "--format", "flat", "--outcomes", tmp_path / "in", "--out", tmp_path / "new") == 1
    assert f"--out {tmp_path}/new: is a folder; name a file" in capsys.readouterr().err
    again = read_outcomes(tmp_path / "back")
    np.testing.assert_array_equal(again.scores, table.scores)
    assert again.splits == ("train", "test")
