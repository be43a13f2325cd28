"""Labelled queries: what is read, and what each wrong line is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from coe.base.errors import DataError
from coe.training.fit_inputs import read_seed
from coe.training.types import LabelledQuery


def seed_folder(root: Path, **files: str) -> Path:
    for category, content in files.items():
        (root / f"{category}.jsonl").write_text(content, encoding="utf-8")
    return root


def test_seed_is_read_by_file_and_line(tmp_path: Path) -> None:
    folder = seed_folder(
        tmp_path,
        sql='{"text": " select all ", "style": "terse", "language": "en"}\n\n{"text": "drop it", "category": "sql"}\n',
        code='{"text": "a\\u2028b"}',
    )
    assert read_seed(folder) == (
        LabelledQuery("a\u2028b", "code"),
        LabelledQuery("select all", "sql", "terse", "en"),
        LabelledQuery("drop it", "sql"),
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "sql.jsonl: row 2: is not JSON"),
        ("[1]", "sql.jsonl: row 2: expected an object; got a list"),
        ('{"text": "x", "catgory": "sql"}', "field 'catgory': is unknown; did you mean 'category'?"),
        ('{"text": [3]}', "sql.jsonl: row 2, field 'text': must be text; got a list"),
        ('{"text": "  "}', "sql.jsonl: row 2, field 'text': must not be blank"),
        ('{"text": "x", "category": "code"}', "sql.jsonl: row 2: category 'code' in a file of category 'sql'"),
        ('{"text": "SELECT, all!"}', "sql.jsonl: row 2: text is already at .*sql.jsonl: row 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    folder = seed_folder(tmp_path, sql='{"text": "select all"}\n' + line)
    with pytest.raises(DataError, match=complaint.replace("?", r"\?")):
        read_seed(folder)


def test_no_folder_and_no_query_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        read_seed(tmp_path / "none")
    with pytest.raises(DataError, match="holds no query"):
        read_seed(tmp_path)
    (tmp_path / "bad.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_seed(tmp_path)
