"""Labelled queries as JSON lines: `{"text": "...", "category": "...", "style": "...", "language": "..."}`.

In a seed folder, `<category>.jsonl` holds the queries of one category, so the key `category` may be left out there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from base.errors import DataError, allowed_values
from base.record_files import json_lines
from base.text_identity import normalised_text
from training.types import LabelledQuery

SUFFIX: Final = ".jsonl"
KEYS: Final = ("text", "category", "style", "language")


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
    for record in json_lines(file):
        for key in record.values:
            if key not in KEYS:
                raise DataError(f"{record.place}: unknown key '{key}'{allowed_values(key, KEYS)}")
        named = record.optional_text("category") or category
        style, language = record.optional_text("style"), record.optional_text("language")
        yield record.place, LabelledQuery(record.text("text").strip(), named, style, language)
