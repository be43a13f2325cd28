"""Labelled queries as JSON lines: `{"text": "...", "category": "...", "style": "...", "language": "..."}`.

In a seed folder, `<category>.jsonl` holds the queries of one category, so the key `category` may be left out there.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources.abc import Traversable
from typing import Final

from base.errors import DataError, allowed_values
from base.record_files import parse_json
from base.text_identity import normalised_text
from training.types import LabelledQuery

SUFFIX: Final = ".jsonl"
KEYS: Final = ("text", "category", "style", "language")


def read_seed(folder: Traversable) -> tuple[LabelledQuery, ...]:
    """Queries of a folder of `<category>.jsonl` files, by file name and then line.

    Raises:
        DataError: with file and line; no such folder or no query, a line that is not a query, a line that names another
            category than its file, or a text that occurs twice (up to case, spacing and punctuation).
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; expected a folder of files named <category>{SUFFIX}")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(SUFFIX)), key=lambda file: file.name)
    queries: list[LabelledQuery] = []
    seen: dict[str, str] = {}
    for file in files:
        category = file.name.removesuffix(SUFFIX)
        for place, query in numbered_queries(file, category):
            if query.category != category:
                raise DataError(f"{place}: category '{query.category}' in a file of category '{category}'")
            key = normalised_text(query.text)
            if key in seen:
                raise DataError(f"{place}: text is already at {seen[key]}")
            seen[key] = place
            queries.append(query)
    if not queries:
        raise DataError(f"{folder}: holds no query; expected files named <category>{SUFFIX}")
    return tuple(queries)


def numbered_queries(file: Traversable, category: str) -> Iterator[tuple[str, LabelledQuery]]:
    """Each query with its place, `file:line`. Lines that name no category have the file's; blank lines are skipped."""
    try:
        # split, not splitlines, which also cuts at separators inside JSON strings
        lines = file.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text (byte {error.start})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"{file}:{number}"
            yield place, parse_query(line, place, category)


def parse_query(line: str, place: str, category: str) -> LabelledQuery:
    values = parse_json(line, place)
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected an object with the keys {', '.join(KEYS)}; got {type(values).__name__}")
    for key, value in values.items():
        if key not in KEYS:
            raise DataError(f"{place}: unknown key '{key}'{allowed_values(key, KEYS)}")
        if not isinstance(value, str):
            raise DataError(f"{place}: {key} must be a text; got {type(value).__name__}")
    named = values.get("category") or category
    if not values.get("text", "").strip():
        raise DataError(f"{place}: key 'text' is missing or blank")
    return LabelledQuery(values["text"].strip(), named, values.get("style", ""), values.get("language", ""))
