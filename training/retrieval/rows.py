"""Rows of JSON lines, tab-separated and Parquet files, compressed or not, each with its place for an error."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from router.errors import DataError, allowed_values
from training.datasets.record_files import parse_json


@dataclass(frozen=True)
class Row:
    """One object of a file; `place` is "file: row 3"."""

    place: str
    values: Mapping[str, Any]

    def one_of(self, names: Iterable[str]) -> str:
        """The first of these ids that is there, as text. Raises DataError."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value)
            if isinstance(value, str) and value:
                return value
        raise DataError(f"{self.place}: has no id; expected a text or a number as one of {', '.join(names)}")

    def text(self, name: str) -> str:
        """A text that is not blank. Raises DataError."""
        value = self.text_or_empty(name)
        if not value.strip():
            raise DataError(f"{self.place}: '{name}' is missing or blank{allowed_values(name, self.values)}")
        return value

    def text_or_empty(self, name: str) -> str:
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise DataError(f"{self.place}: '{name}' must be a text; got {type(value).__name__}")
        return value

    def grade(self, name: str) -> int:
        """A whole number; 1 where the file has no such column. Raises DataError."""
        value = self.values.get(name, 1)
        try:
            number = float(value)
            if number != int(number):
                raise ValueError
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self.place}: '{name}' must be a whole number; got '{str(value)[:20]}'") from error
        return int(number)


def read_rows(files: Iterable[Path]) -> Iterator[Row]:
    """Rows of files in order, by each one's suffix. Raises DataError with file and row."""
    for file in files:
        name = file.name.removesuffix(".gz")
        try:
            if name.endswith(".parquet"):
                yield from parquet_rows(file)
            elif name.endswith(".tsv"):
                with open_text(file) as stream:
                    yield from tab_rows(file, stream)
            else:
                with open_text(file) as stream:
                    yield from json_rows(file, stream)
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: is not UTF-8 text (near byte {error.start})") from error
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file}: cannot be read, or only half of it ({type(error).__name__})") from error


def open_text(file: Path) -> IO[str]:
    if file.name.endswith(".gz"):
        return cast(IO[str], gzip.open(file, "rt", encoding="utf-8-sig", newline="\n"))
    return file.open(encoding="utf-8-sig", newline="\n")


def json_rows(file: Path, stream: IO[str]) -> Iterator[Row]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            place = f"{file}: row {number}"
            values = parse_json(line, place)
            if not isinstance(values, dict):
                raise DataError(f"{place}: expected an object; got {type(values).__name__}")
            yield Row(place, values)


def tab_rows(file: Path, stream: IO[str]) -> Iterator[Row]:
    """Rows under BEIR's header, or TREC's four columns (query, 0, document, grade) without one."""
    lines = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
    header: list[str] | None = None
    for number, cells in enumerate(lines, start=1):
        place = f"{file}: row {number}"
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if header is None:
            is_header = cells[0].lower() in ("query-id", "query_id", "qid")
            header = [cell.lower() for cell in cells] if is_header else ["query-id", "iteration", "corpus-id", "score"]
            if is_header:
                continue
            if len(cells) == 3:
                header = ["query-id", "corpus-id", "score"]
        if len(cells) != len(header):
            raise DataError(f"{place}: has {len(cells)} columns; expected {len(header)}: {', '.join(header)}")
        yield Row(place, dict(zip(header, cells, strict=True)))


def parquet_rows(file: Path) -> Iterator[Row]:
    """Raises DataError, MissingExtraError."""
    from training.datasets.columns import read_table

    number = 0
    for batch in read_table(file, ()).to_batches(max_chunksize=4096):
        for values in batch.to_pylist():
            number += 1
            yield Row(f"{file}: row {number}", values)
