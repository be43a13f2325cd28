"""Labelled queries as JSON lines: `{"text": "...", "category": "...", "style": "...", "language": "..."}`.

In a seed folder, `<category>.jsonl` holds the queries of one category, so the key `category` may be left out there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from coe.base.errors import DataError
from coe.base.record_files import OptionalText, Row, Text, json_records
from coe.base.text_identity import normalised_text
from coe.training.types import LabelledQuery

SUFFIX: Final = ".jsonl"


class QueryRow(Row, extra="forbid"):
    text: Text
    category: OptionalText = ""
    style: OptionalText = ""
    language: OptionalText = ""


def read_seed(folder: Path) -> tuple[LabelledQuery, ...]:
    """Queries of a folder of `<category>.jsonl` files, by file name and then line.

    Raises:
        DataError: with file and row; no such folder or no query, a line that is not a query, a line that names another
            category than its file, or a text that occurs twice (up to case, spacing and punctuation).
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; expected a folder of files named <category>{SUFFIX}")
    queries: list[LabelledQuery] = []
    seen: dict[str, str] = {}
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        for place, query in numbered_queries(file, file.stem):
            if query.category != file.stem:
                raise DataError(f"{place}: category '{query.category}' in a file of category '{file.stem}'")
            key = normalised_text(query.text)
            if key in seen:
                raise DataError(f"{place}: text is already at {seen[key]}")
            seen[key] = place
            queries.append(query)
    if not queries:
        raise DataError(f"{folder}: holds no query; expected files named <category>{SUFFIX}")
    return tuple(queries)


def numbered_queries(file: Path, category: str) -> Iterator[tuple[str, LabelledQuery]]:
    """Each query of a file with its place. Lines that name no category have the file's. Raises DataError."""
    for record in json_records(file):
        row = record.read(QueryRow)
        yield record.place, LabelledQuery(row.text.strip(), row.category or category, row.style, row.language)
