"""Contract of importers, with files of its format, whole and broken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from base.errors import ConfigError, DataError
from tests.training.datasets.importers.format_shapes import (
    CATEGORIES,
    SCORES,
    SHAPES,
    TEXTS,
    Records,
    Shape,
    drop,
    dump_csv,
    dump_parquet,
    put,
)
from training.datasets.import_formats import (
    ImportOptions,
    find_files,
    import_formats,
    load_importer,
    read_outcomes_of,
)
from training.datasets.outcome_rows import Reasons, told
from training.datasets.outcomes import read_outcomes, write_outcomes
from training.types import OutcomeTable

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])


def import_shape(
    shape: Shape, arguments: list[str], options: ImportOptions | None = None
) -> tuple[OutcomeTable, Reasons]:
    importer = load_importer(shape.format)
    return read_outcomes_of(importer, find_files(importer, arguments), options or shape.options, "quiz")


def refused(shape: Shape, arguments: list[str]) -> str:
    with pytest.raises(DataError) as caught:
        import_shape(shape, arguments)
    return str(caught.value)


def test_every_importer_has_a_shape() -> None:
    assert {shape.format for shape in SHAPES} == set(import_formats())


def test_every_format_is_documented_with_a_command() -> None:
    text = (Path(__file__).parents[4] / "docs" / "formats.md").read_text(encoding="utf-8")
    for name in import_formats():
        assert f": `{name}`" in text, name
        assert f"coe outcomes import --format {name} " in text, name


@each_shape
def test_texts_labels_and_scores_are_read(shape: Shape, tmp_path: Path) -> None:
    table, left_out = import_shape(shape, shape.write(tmp_path))
    assert table.experts == ("large", "small")
    assert table.texts == tuple(TEXTS.values())
    assert table.categories == tuple(CATEGORIES.values())
    expected = [[SCORES[p, m] for m in ("large", "small")] for p in TEXTS]
    np.testing.assert_allclose(table.scores, expected, atol=1e-9)
    assert table.source == "quiz"
    assert left_out == {}


@each_shape
def test_an_imported_table_is_read_back_from_its_folder(shape: Shape, tmp_path: Path) -> None:
    table = import_shape(shape, shape.write(tmp_path / "in"))[0]
    write_outcomes(table, tmp_path / "out")
    again = read_outcomes(tmp_path / "out")
    for name in ("prompt_ids", "texts", "categories", "splits", "experts", "metric", "source"):
        assert getattr(again, name) == getattr(table, name), name
    for name in ("scores", "cost_usd", "output_tokens", "latency_ms"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name), name)


@each_shape
def test_half_a_file_is_refused(shape: Shape, tmp_path: Path) -> None:
    arguments = shape.write(tmp_path)
    file = Path(arguments[0])
    file.write_bytes(file.read_bytes()[:-9])  # of a CSV file, that takes the last cell
    message = refused(shape, arguments)
    assert message.startswith(str(file))
    assert re.search(r"half of|cannot be read", message), message


@each_shape
def test_an_empty_file_is_refused(shape: Shape, tmp_path: Path) -> None:
    arguments = shape.write(tmp_path)
    Path(arguments[0]).write_bytes(b"")
    assert refused(shape, arguments).startswith(arguments[0])


REQUIRED = [(shape, path) for shape in SHAPES for path in shape.required]


@pytest.mark.parametrize(("shape", "path"), REQUIRED, ids=[f"{shape.name}-{path}" for shape, path in REQUIRED])
def test_a_missing_field_is_named_with_its_row(shape: Shape, path: str, tmp_path: Path) -> None:
    message = refused(shape, shape.write(tmp_path, lambda records: drop(records[1], path)))
    # a column is missing in every row, so the first tells
    has_columns = shape.dump in (dump_csv, dump_parquet)
    assert ("row 1" in message) if has_columns else ("row 2" in message), message
    *_, parent, name = ("", *path.split("."))
    assert "field '" in message
    assert name in message or parent in message


@each_shape
@pytest.mark.parametrize("wrong", ["high", {"value": [1]}], ids=["text", "object"])
def test_a_score_that_is_no_number_is_refused(shape: Shape, wrong: Any, tmp_path: Path) -> None:
    message = refused(shape, shape.write(tmp_path, lambda records: put(records[1], shape.score, wrong)))
    assert "row 2" in message
    assert "must be a number; got" in message or "choose one" in message


@each_shape
def test_a_score_out_of_range_is_refused(shape: Shape, tmp_path: Path) -> None:
    message = refused(shape, shape.write(tmp_path, lambda records: put(records[1], shape.score, 7)))
    assert "row 2" in message
    assert shape.score.split(".")[-2:][0] in message
    assert "7 is not allowed; expected" in message


@each_shape
def test_scores_are_rescaled_from_a_named_range(shape: Shape, tmp_path: Path) -> None:
    arguments = shape.write(tmp_path, lambda records: put(records[0], shape.score, 5))
    options = ImportOptions(category_field=shape.options.category_field, score_range="0:5")
    scores = import_shape(shape, arguments, options)[0].scores
    assert scores.max() == 1.0
    assert sorted(set(scores[scores < 1].tolist())) == pytest.approx(
        [0.0, 0.2] if scores[0, 1] == 1 else [0.0, 0.1, 0.2]
    )


@each_shape
def test_a_row_without_a_score_is_counted_not_dropped_silently(shape: Shape, tmp_path: Path) -> None:
    table, left_out = import_shape(shape, shape.write(tmp_path, lambda records: put(records[1], shape.score, None)))
    (line,) = told(left_out)
    assert line.startswith("left out: 1 x no ")
    assert "row 2" in line
    assert np.isnan(table.scores).sum() == 1


def repeat(records: Records) -> None:
    records.append(records[1])


@each_shape
def test_a_pair_that_is_scored_twice_is_refused(shape: Shape, tmp_path: Path) -> None:
    arguments = shape.write(tmp_path)
    again = shape.write(tmp_path / "again")
    assert "scored already at" in refused(shape, [*arguments, again[0]])
    message = refused(shape, shape.write(tmp_path, repeat))
    assert "already" in message
    assert f"row {len(next(iter(shape.files.values()))) + 1}" in message


@each_shape
def test_rows_of_router_arena_are_refused(shape: Shape, tmp_path: Path) -> None:
    def add(records: Records) -> None:
        for record in records:
            record["global index"] = "ArcMMLU_1"

    assert "never used for fitting" in refused(shape, shape.write(tmp_path, add))


def test_an_unknown_format_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown format 'lmeval'; did you mean 'lm_eval'\? allowed: .*lm_eval"):
        load_importer("lmeval")


@pytest.mark.parametrize("option", ["text_field", "metric", "filter", "field"])
@each_shape
def test_an_option_is_read_or_refused(shape: Shape, option: str, tmp_path: Path) -> None:
    """No option is taken and then ignored: a value that fits nothing must be noticed."""
    value = ["prompt_id=nothing"] if option == "field" else "nothing"
    arguments = shape.write(tmp_path)
    options = ImportOptions(category_field=shape.options.category_field, **{option: value})
    if option not in load_importer(shape.format).OPTIONS:
        with pytest.raises(ConfigError, match=f"format '{shape.format}' does not read it"):
            import_shape(shape, arguments, options)
    elif option == "field":
        assert import_shape(shape, arguments, options)[0].prompt_ids != tuple(TEXTS)
    else:
        with pytest.raises(DataError, match="nothing"):
            import_shape(shape, arguments, options)
