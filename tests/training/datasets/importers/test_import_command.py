"""`coe outcomes ...` as a person runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from coe.command_line import run
from tests.training.datasets.importers.format_shapes import dump_csv as dump
from tests.training.datasets.importers.format_shapes import dump_jsonl, flat, lm_eval
from training.datasets.import_formats import import_formats
from training.datasets.outcomes import read_outcomes


def coe(name: str, *arguments: object) -> int:
    return run(name, [str(argument) for argument in arguments])


def test_what_was_read_and_what_was_left_out_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = flat()
    records[3]["score"] = None
    dump(tmp_path / "x.csv", records)
    assert coe("outcomes import", "--format", "flat", tmp_path / "x.csv", "--out", tmp_path / "quiz") == 0
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
    arguments = ("--format", "flat", tmp_path / "x.csv", "--out", tmp_path / "quiz")
    assert coe("outcomes import", *arguments) == 0
    before = (tmp_path / "quiz" / "scores.parquet").read_bytes()
    assert coe("outcomes import", *arguments) == 1
    assert "there is an outcome table already" in capsys.readouterr().err
    assert (tmp_path / "quiz" / "scores.parquet").read_bytes() == before


def test_nothing_is_written_when_a_file_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path / "x.csv", [record | {"score": 80} for record in flat()])
    arguments = ("--format", "flat", tmp_path / "x.csv", "--out", tmp_path / "quiz")
    assert coe("outcomes import", *arguments) == 1
    found = capsys.readouterr().err
    assert "x.csv: row 1, field 'score': 80 is not allowed; expected 0 to 1; name the range of these scores" in found
    assert "Traceback" not in found
    assert not (tmp_path / "quiz").exists()
    assert coe("outcomes import", *arguments, "--score-range", "0:100") == 0
    assert read_outcomes(tmp_path / "quiz").scores.max() == pytest.approx(0.8)


def test_a_table_is_not_written_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path / "x.csv", flat())
    assert coe("outcomes import", "--format", "flat", tmp_path / "x.csv", "--out", tmp_path / "x.csv") == 1
    assert "x.csv is not a folder; name another" in capsys.readouterr().err


def test_half_a_character_becomes_a_replacement_in_texts_and_names(tmp_path: Path) -> None:
    """Python's JSON writes a surrogate as an escape, and JSON readers take it; UTF-8 cannot hold one."""
    halves = {"prompt": "say \ud83d now", "category": "a\udc00", "model": "m\ud800", "metric": "x\udfff"}
    dump_jsonl(tmp_path / "x.jsonl", [record | halves for record in flat()[:1]])
    assert coe("outcomes import", "--format", "flat", tmp_path / "x.jsonl", "--out", tmp_path / "quiz") == 0
    table = read_outcomes(tmp_path / "quiz")
    assert table.texts == ("say \ufffd now",)
    assert (table.categories, table.experts, table.metric) == (("a\ufffd",), ("m\ufffd",), "x\ufffd")


def test_an_amount_that_a_table_cannot_hold_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path / "x.csv", [record | {"cost_usd": 1e39} for record in flat()])
    assert coe("outcomes import", "--format", "flat", tmp_path / "x.csv", "--out", tmp_path / "quiz") == 1
    assert "row 1, field 'cost_usd': must be at most 3.4028" in capsys.readouterr().err
    assert not (tmp_path / "quiz").exists()


def test_nothing_is_written_under_a_name_that_is_not_utf_8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Python reads a byte of the command line that is not UTF-8 as a surrogate."""
    dump(tmp_path / "x.csv", flat()[:1])
    named = f"mine\udcff={tmp_path}/x.csv"
    assert coe("outcomes import", "--format", "flat", named, "--out", tmp_path / "q") == 1
    found = capsys.readouterr().err
    assert "must be text that UTF-8 can hold" in found
    assert "Traceback" not in found
    assert not (tmp_path / "q").exists()


def test_folders_and_named_models_and_options_reach_the_importer(tmp_path: Path) -> None:
    for model in ("small", "large"):
        (tmp_path / model).mkdir()
        dump_jsonl(tmp_path / model / "samples_quiz.jsonl", lm_eval(model))
    options = ("--category-field", "subject", "--text-field", "question", "--source", "exam", "--metric", "exact_match")
    named = f"mine={tmp_path}/small/samples_quiz.jsonl"
    found = ("--format", "lm_eval", named, tmp_path / "large", "--out", tmp_path / "t", "--filter", "strict-match")
    assert coe("outcomes import", *found, *options) == 0
    table = read_outcomes(tmp_path / "t")
    assert (table.experts, table.categories, table.source) == (("large", "mine"), ("math", "books"), "exam")


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (("--field", "score"), "--field: 'score' is not allowed; expected OURS=THEIRS"),
        (("--field", "mark=score"), "--field: unknown name 'mark'"),
        (("--score-range", "0-5"), "--score-range: expected LOW:HIGH, the first below the second, such as 0:10"),
        (("--score-range", "5:0"), "(got '5:0')"),
        (("--score-range", ""), "(got '')"),
        (("--score-range", "0:inf"), "(got '0:inf')"),
        (("--category", "a", "--category-field", "b"), "give either --category-field or --category"),
        (("--category", ""), "--category: must not be blank (got '')"),
        (("--category", " "), "--category: must not be blank (got ' ')"),
        (("--filter", "x"), "--filter: format 'flat' does not read it"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    option: tuple[str, ...], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump(tmp_path / "x.csv", flat())
    assert coe("outcomes import", "--format", "flat", tmp_path / "x.csv", "--out", tmp_path / "q", *option) == 1
    assert complaint in capsys.readouterr().err


def test_help_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert coe("outcomes import", "--help") == 0
    assert f"format of the files: {', '.join(import_formats())}" in " ".join(capsys.readouterr().out.split())
