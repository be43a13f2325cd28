"""An exported table comes back unchanged when it is imported."""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from base.errors import ConfigError, DataError
from eval.export import FORMATS, export
from training.datasets.import_formats import ImportOptions, find_files, load_importer, read_outcomes_of
from training.datasets.outcomes import write_outcomes
from training.types import OutcomeTable

ROUND_TRIPS = (("flat", ".csv"), ("routerbench", ".parquet"), ("routerbench", ".csv"))


def words() -> st.SearchStrategy[str]:
    """Any text that UTF-8 can hold, without blanks at its ends."""
    letters = st.characters(codec="utf-8")
    return st.text(letters, min_size=1, max_size=20).map(str.strip).filter(bool)


def names() -> st.SearchStrategy[str]:
    return st.text(st.sampled_from("abcXYZ09-./"), min_size=1, max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> OutcomeTable:
    n, m = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    unit = st.floats(0, 1, width=32)

    def matrix(cells: st.SearchStrategy[float]) -> np.ndarray:
        listed = draw(st.lists(st.lists(cells, min_size=m, max_size=m), min_size=n, max_size=n))
        return np.array(listed, dtype=np.float32)

    scores = matrix(st.one_of(unit, st.just(float("nan"))))
    scores[np.isnan(scores).all(axis=1), 0] = 0.5
    scores[0, np.isnan(scores).all(axis=0)] = 0.25
    is_known = np.isfinite(scores)
    whole = st.integers(0, 10_000).map(float)
    prompts = st.lists(words(), min_size=n, max_size=n)
    return OutcomeTable(
        prompt_ids=tuple(draw(st.lists(names(), min_size=n, max_size=n, unique=True))),
        texts=tuple(draw(prompts)),
        categories=tuple(draw(st.lists(names(), min_size=n, max_size=n))),
        splits=tuple(draw(st.lists(st.sampled_from(["train", "valid", "test"]), min_size=n, max_size=n))),
        experts=tuple(sorted(draw(st.lists(names(), min_size=m, max_size=m, unique=True)))),
        scores=scores,
        cost_usd=np.where(is_known, matrix(unit), np.nan).astype(np.float32),
        output_tokens=np.where(is_known, matrix(whole), np.nan).astype(np.float32),
        latency_ms=np.where(is_known, matrix(whole), np.nan).astype(np.float32),
        metric="exact",
        source="made",
    )


def there_and_back(table: OutcomeTable, format_name: str, suffix: str) -> OutcomeTable:
    with tempfile.TemporaryDirectory() as folder:
        write_outcomes(table, Path(folder) / "made")
        out = Path(folder) / f"routing{suffix}"
        export(format_name, Path(folder) / "made", out)
        importer = load_importer(format_name)
        return read_outcomes_of(importer, find_files(importer, [str(out)]), ImportOptions(), "made")[0]


@pytest.mark.parametrize(("format_name", "suffix"), ROUND_TRIPS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables())
def test_a_table_survives_export_and_import(format_name: str, suffix: str, table: OutcomeTable) -> None:
    again = there_and_back(table, format_name, suffix)
    for name in ("texts", "categories", "experts"):
        assert getattr(again, name) == getattr(table, name), name
    np.testing.assert_array_equal(again.scores, table.scores)
    assert again.prompt_ids == table.prompt_ids
    np.testing.assert_array_equal(again.cost_usd, table.cost_usd)
    if format_name == "flat":
        assert (again.splits, again.metric) == (table.splits, table.metric)
    if format_name != "routerbench":
        np.testing.assert_array_equal(again.output_tokens, table.output_tokens)
        np.testing.assert_allclose(again.latency_ms, table.latency_ms, rtol=1e-6)


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


def exported(tmp_path: Path, format_name: str, file: str) -> Path:
    write_outcomes(small_table(), tmp_path / "made")
    export(format_name, tmp_path / "made", tmp_path / file)
    return tmp_path / file


def test_a_routerbench_frame_names_the_cheapest_of_the_best(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    columns = pq.read_table(exported(tmp_path, "routerbench", "frame.parquet")).to_pydict()
    assert columns["oracle_model_to_route_to"] == ["mid", "no_model_correct", "mid"]
    assert columns["prompt"][0] == """["it's one"]"""
    assert [name for name in columns if name.endswith("|model_response")] == [
        f"{name}|model_response" for name in ("big", "mid", "small")
    ]


def test_json_lines_that_join_both_files_of_a_table_are_imported_unchanged(tmp_path: Path) -> None:
    """The join that docs/formats.md names."""
    import pyarrow.parquet as pq

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


def test_an_expert_called_like_a_column_is_refused(tmp_path: Path) -> None:
    write_outcomes(replace(small_table(), experts=("big", "mid", "prompt")), tmp_path / "made")
    with pytest.raises(DataError, match="expert 'prompt' has the name of a column"):
        export("routerbench", tmp_path / "made", tmp_path / "x.csv")


def test_an_unknown_format_or_ending_is_refused(tmp_path: Path) -> None:
    write_outcomes(small_table(), tmp_path / "made")
    with pytest.raises(ConfigError, match=r"unknown format 'xls'; allowed: flat, routerbench"):
        export("xls", tmp_path / "made", tmp_path / "x.csv")
    with pytest.raises(ConfigError, match=r"ending '.pkl' is not allowed; expected .parquet or .csv"):
        export("routerbench", tmp_path / "made", tmp_path / "x.pkl")


def test_every_exporter_is_tested() -> None:
    assert set(FORMATS) == {name for name, _ in ROUND_TRIPS}


@pytest.mark.parametrize("format_name", ["flat", "routerbench"])
def test_a_spreadsheet_finds_no_formula_and_the_import_finds_the_text(tmp_path: Path, format_name: str) -> None:
    formulas = ("=cmd|' /C calc'!A0", "+1+1", "-2", "@SUM(A1)", "'=1")
    n = len(formulas)
    table = OutcomeTable(
        prompt_ids=tuple(f"={i}" for i in range(n)), texts=formulas, categories=("=c",) * n, splits=("test",) * n,
        experts=("=one", "two"), scores=np.tile(np.float32([-0.0, 0.5]), (n, 1)), cost_usd=np.full((n, 2), np.nan),
        output_tokens=np.full((n, 2), np.nan), latency_ms=np.full((n, 2), np.nan), metric="exact", source="made",
    )  # fmt: skip
    write_outcomes(table, tmp_path / "made")
    export(format_name, tmp_path / "made", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "@", "-2"))] == []
    again = there_and_back(table, format_name, ".csv")
    assert (again.texts, again.categories, again.experts) == (table.texts, table.categories, table.experts)
