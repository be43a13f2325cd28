"""Records of JSON lines, CSV, tab-separated and Parquet files, each with its place for an error.

Text files may be compressed (.gz). Rows are counted from 1; the header of a CSV file is not a row.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from base.columns import LARGEST_AMOUNT, read_table
from base.errors import DataError, allowed_values
from base.visible_text import as_meant

ABSENT = object()

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""A JSON escape of half a character."""


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a file. `place` is "file: row 3"; `unit` is what the file calls a value: a field or a column."""

    place: str
    values: Mapping[str, Any]
    unit: Literal["field", "column"] = "field"

    def fault(self, name: str, problem: str) -> DataError:
        return DataError(f"{self.place}, {self.unit} '{name}': {problem}")

    def missing(self, name: str, hint: str = "") -> DataError:
        return DataError(
            f"{self.place}, {self.unit} '{name}': is missing{allowed_values(name, self.values)}{hint and f'; {hint}'}"
        )

    def get(self, name: str) -> Any:
        """The value, or `ABSENT`. A name with dots leads into objects: `metadata.subject`."""
        if name in self.values:
            return self.values[name]
        found: Any = self.values
        for part in name.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return ABSENT
            found = found[part]
        return found

    def require(self, name: str) -> Any:
        """The value. Raises DataError when it is not there."""
        value = self.get(name)
        if value is ABSENT:
            raise self.missing(name)
        return value

    def text(self, name: str) -> str:
        """A text that is not blank; whole numbers count as texts, since ids often are. Raises DataError."""
        value = self.require(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self.fault(name, f"expected a text; got {kind_of(value)}")
        if not value.strip():
            raise self.fault(name, "is empty")
        return value

    def optional_text(self, name: str) -> str:
        """As `text`, "" where it is not there, null or empty."""
        return "" if self.get(name) in (ABSENT, None, "") else self.text(name)

    def first_text(self, names: Iterable[str]) -> str:
        """The first of these that is there, as text. Raises DataError when none is."""
        for name in names:
            if text := self.optional_text(name):
                return text
        raise DataError(f"{self.place}: has no id; expected a text or a number as one of {', '.join(names)}")

    def whole_number(self, name: str, default: int) -> int:
        """As `number`, `default` where the file has no such column. Raises DataError when it is not whole."""
        if self.get(name) is ABSENT:
            return default
        number = self.number(name)
        if number is None or number != int(number):
            raise self.fault(name, f"expected a whole number; got{shown(self.get(name))}")
        return int(number)

    def number(self, name: str) -> float | None:
        """A number, also one written as a text, with true and false as 1 and 0; None where it is not there, null, empty
        or NaN. Raises DataError on anything else."""
        value = self.get(name)
        return None if value is ABSENT else self.as_number(name, value)

    def as_number(self, name: str, value: Any) -> float | None:
        """`value`, found under `name`, as `number` reads it. Raises DataError."""
        if value is None or value == "":
            return None
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value.strip().lower(), value)
        try:
            number = float(value) if isinstance(value, int | float | str) else None
        except (ValueError, OverflowError):
            number = None
        if number is None:
            raise self.fault(name, f"expected a number; got {kind_of(value)}{shown(value)}")
        if math.isinf(number):
            raise self.fault(name, f"{number} is not allowed; expected a finite number")
        return None if math.isnan(number) else number

    def amount(self, name: str) -> float | None:
        """As `number`, from 0 to `LARGEST_AMOUNT`: a cost, a count, a time."""
        number = self.number(name)
        if number is not None and not 0 <= number <= LARGEST_AMOUNT:
            raise self.fault(name, f"{number:g} is not allowed; expected 0 or more, at most {LARGEST_AMOUNT:g}")
        return number


def kind_of(value: Any) -> str:
    """Name that JSON gives to the type of a value."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def shown(value: Any) -> str:
    """A short value for an error; nothing of a long one, which may be someone's prompt."""
    return f" '{value}'" if isinstance(value, str) and len(value) <= 20 else ""


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Raises DataError when there is no such file, it cannot be read, or it is not UTF-8."""
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            yield cast(IO[str], stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (near byte {error.start})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: cannot be read, or only half of it ({type(error).__name__})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def parse_json(text: str | bytes, place: str) -> Any:
    """A value whose texts can be written again: half a character (a surrogate without its other half, which JSON can
    name and UTF-8 cannot) becomes U+FFFD. Raises DataError with the place."""
    try:
        text = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        value = json.loads(text)
        if SURROGATE.search(text):
            written = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
            value = json.loads(written.decode("utf-16", "replace"))
        return value
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: is not JSON, or only half of it ({str(error)[:120]})") from error


def as_record(values: Any, place: str) -> Record:
    """Raises DataError when the value is not an object, or is a row of RouterArena."""
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected an object; got {kind_of(values)}")
    refuse_router_arena(values, place)
    return Record(place, values)


def refuse_router_arena(names: Any, place: str) -> None:
    """Raises DataError when these are the fields of a RouterArena row: who fits on that test proves nothing."""
    if any(isinstance(name, str) and name.lower().replace("_", " ") == "global index" for name in names):
        raise DataError(
            f"{place}: has the field 'global index' of RouterArena, which is a test and never used for fitting"
        )


def json_lines(path: Path) -> Iterator[Record]:
    """One object a line; blank lines are skipped. Raises DataError with the row, or when there is none."""
    is_empty = True
    with open_text(path) as lines:
        for number, line in enumerate(split_lines(lines), start=1):
            if line.strip():
                is_empty = False
                place = f"{path}: row {number}"
                yield as_record(parse_json(line, place), place)
    if is_empty:
        raise no_rows(path)


def json_rows(path: Path) -> Iterator[Record]:
    """The objects of a JSON list, of the list `data` of one object, or of JSON lines. Raises DataError as `json_lines`
    does."""
    with open_text(path) as stream:
        text = stream.read()
    try:
        whole = parse_json(text, str(path))
    except DataError:
        yield from json_lines(path)
        return
    rows = whole.get("data", whole) if isinstance(whole, dict) else whole
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        yield as_record(row, f"{path}: row {number}")


def no_rows(path: Path) -> DataError:
    return DataError(f"{path}: holds no row")


def split_lines(stream: IO[str]) -> Iterator[str]:
    """Lines cut at "\\n" alone: other separators may appear inside JSON strings."""
    rest = ""
    while block := stream.read(1 << 20):
        *lines, rest = (rest + block).split("\n")
        yield from lines
    if rest:
        yield rest


def csv_rows(path: Path) -> Iterator[Record]:
    """The rows of a CSV file with a header. Raises DataError with row and column."""
    limit = csv.field_size_limit(sys.maxsize)  # the default refuses prompts of more than 131,072 characters
    try:
        with open_text(path) as stream:
            cells = ([as_meant(cell) for cell in row] for row in csv.reader(stream, strict=True))
            yield from checked_rows(path, cells)
    finally:
        csv.field_size_limit(limit)


def checked_rows(path: Path, rows: Iterator[list[str]]) -> Iterator[Record]:
    number, is_empty = 0, True
    try:
        header = next(rows, [])
        check_header(path, header)
        for number, cells in enumerate(rows, start=1):
            if not cells:
                continue
            if len(cells) < len(header):
                raise DataError(f"{path}: row {number}, column '{header[len(cells)]}': the row ends before it")
            if len(cells) > len(header):
                raise DataError(f"{path}: row {number}: has {len(cells)} cells; the header has {len(header)}")
            is_empty = False
            yield Record(f"{path}: row {number}", dict(zip(header, cells, strict=True)), "column")
        if is_empty:
            raise no_rows(path)
    except csv.Error as error:
        raise DataError(f"{path}: row {number + 1}: is not CSV, or only half of it ({error})") from error


def check_header(path: Path, header: list[str]) -> None:
    """Raises DataError when there is no header, a name appears twice, or it is RouterArena's."""
    if not header:
        raise DataError(f"{path}: is empty; expected a header and rows")
    repeated = [name for i, name in enumerate(header) if name in header[:i]]
    if repeated:
        raise DataError(f"{path}: column '{repeated[0]}': appears twice in the header")
    refuse_router_arena(header, str(path))


def tab_rows(
    path: Path, header_names: Collection[str], default_headers: Mapping[int, Sequence[str]]
) -> Iterator[Record]:
    """The rows of a tab-separated file; blank ones are skipped. Raises DataError with the row.

    Args:
        header_names: a first row that begins with one of these names the columns.
        default_headers: names of the columns without such a row, by how many there are.
    """
    header: Sequence[str] | None = None
    with open_text(path) as stream:
        for number, raw in enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
            cells = [cell.strip() for cell in raw]
            if not any(cells):
                continue
            if header is None:
                if cells[0].lower() in header_names:
                    header = [cell.lower() for cell in cells]
                    continue
                header = default_headers.get(len(cells), default_headers[max(default_headers)])
            if len(cells) != len(header):
                expected = f"{len(header)}: {', '.join(header)}"
                raise DataError(f"{path}: row {number}: has {len(cells)} columns; expected {expected}")
            yield Record(f"{path}: row {number}", dict(zip(header, cells, strict=True)), "column")


def parquet_rows(path: Path) -> Iterator[Record]:
    """The rows of a Parquet file. Raises DataError, MissingExtraError."""
    if not path.is_file():
        raise DataError(f"{path}: cannot be read (no such file)")
    table = read_table(path, ())
    check_header(path, list(table.column_names))
    if table.num_rows == 0:
        raise no_rows(path)
    number = 0
    try:
        for batch in table.to_batches(max_chunksize=4096):
            for values in batch.to_pylist():
                number += 1
                yield Record(f"{path}: row {number}", values, "column")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: row {number + 1} or a later one holds text that is not UTF-8") from error
