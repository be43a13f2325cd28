"""Rows of JSON lines, JSON, CSV and Parquet files, read as pydantic models; each fault names file, row and field.

Text files may be compressed (.gz). Rows are counted starting at 1; blank lines count, the header of a CSV file does
not. pyarrow reads only Parquet: its JSON and CSV readers guess one type per column, and users' logs mix types.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Annotated, Any, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from coe.base.errors import DataError, allowed_values
from coe.base.fault_words import fault_words

LARGEST_AMOUNT = 3.4028234663852886e38
"""The largest 32-bit float, the type of amounts in outcome tables."""

ABSENT = object()
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""A JSON escape of one half of a surrogate pair."""

ROUTER_ARENA = frozenset(("global index", "global_index", "Global Index", "Global_Index"))
"""Spellings of a field that every row of RouterArena has."""

M = TypeVar("M", bound=BaseModel)
Values = Mapping[str, Any]


def as_number(value: Any) -> Any:
    """Convert "true" and "false" to booleans, and an empty text or NaN to None."""
    if isinstance(value, str):
        value = {"true": True, "false": False, "": None, "nan": None}.get(value.strip().lower(), value)
    return None if value != value else value


class Row(BaseModel):
    """The fields of a row. Others are ignored; whole numbers are accepted as texts, because ids often are numbers."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)


Text = Annotated[str, StringConstraints(pattern=r"\S")]
OptionalText = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Number = Annotated[Finite | None, BeforeValidator(as_number)]
Amount = Annotated[Annotated[Finite, Field(ge=0, le=LARGEST_AMOUNT)] | None, BeforeValidator(as_number)]
"""A cost, count or duration; None if unknown."""


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a file; `place` reads "file: row 3"."""

    place: str
    values: Values

    def fault(self, name: str, problem: str) -> DataError:
        return DataError(f"{self.place}, field '{name}': {problem}")

    def get(self, name: str) -> Any:
        """Return a field's value, or `ABSENT`. A dotted name leads into objects: `metadata.subject`."""
        found: Any = self.values
        for part in (name,) if name in self.values else name.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return ABSENT
            found = found[part]
        return found

    def read(self, row: type[M], names: Mapping[str, str] = MappingProxyType({}), **given: object) -> M:
        """Validate the record as a row.

        Args:
            names: the file's name of each field whose name differs from the row's.
            given: values of fields that the file lacks.

        Raises:
            DataError: a field is missing, unknown or invalid; the message has its value and what is allowed.
        """
        values: Values = self.values
        if names or given:
            found = {ours: self.get(theirs) for ours, theirs in names.items()}
            values = {name: value for name, value in ({**values, **found} | given).items() if value is not ABSENT}
        try:
            return row.model_validate(values)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in fault["loc"])
        name = names.get(name, name)
        if not name:
            raise DataError(f"{self.place}: {fault_words(fault)}")
        if fault["type"] == "missing":
            raise self.fault(name, f"is missing{allowed_values(name, self.values)}")
        if fault["type"] == "extra_forbidden":
            raise self.fault(name, f"is unknown{allowed_values(name, row.model_fields)}")
        raise self.fault(name, f"{fault_words(fault)}; got {kind_of(fault['input'])}")


def kind_of(value: Any) -> str:
    """Describe a value by its JSON type, or by itself if it is short. Long texts are not shown: they may be prompts."""
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", bytes: "bytes"}
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 20 else "a text"
    return names.get(type(value), "") or f"{value}"[:20]


def parse_json(text: str | bytes, place: str) -> Any:
    """Parse a JSON text; a lone surrogate, which UTF-8 cannot express, becomes U+FFFD.

    Raises:
        DataError: not JSON; the message starts with `place`.
    """
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
    """Return an object as a record.

    Raises:
        DataError: not an object, or a row of RouterArena, a test that fitting on it would invalidate.
    """
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected an object; got {kind_of(values)}")
    if not ROUTER_ARENA.isdisjoint(values):
        raise DataError(
            f"{place}: has the field 'global index' of RouterArena, which is a test and never used for fitting"
        )
    return Record(place, values)


def ending_of(path: Path) -> str:
    """Return the suffix of a file name without compression: `.csv` for `x.csv` and for `x.csv.gz`."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def read_records(path: Path) -> Iterator[Record]:
    """Yield the rows of a file by its suffix: .csv, .parquet, .jsonl, else JSON or JSON lines.

    Raises:
        DataError: the file cannot be read, a row is incomplete, or there is no row; the message names the row.
        MissingExtraError: pyarrow is not installed.
    """
    yield from numbered(
        path, {".csv": csv_rows, ".parquet": parquet_rows, ".jsonl": json_lines}.get(ending_of(path), json_rows)
    )


def json_records(path: Path) -> Iterator[Record]:
    """Yield the rows of a file of JSON lines; errors as in `read_records`."""
    return numbered(path, json_lines)


def numbered(path: Path, rows_of: Callable[[Path], Iterable[Any]], *, may_be_empty: bool = False) -> Iterator[Record]:
    """Yield rows with their places and skip blank ones (None); errors as in `read_records`."""
    number, is_empty = 0, True
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        for number, values in enumerate(rows_of(path), start=1):
            if values is not None:
                is_empty = False
                place = f"{path}: row {number}"
                yield as_record(parse_json(values, place) if isinstance(values, str) else values, place)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (row {number + 1} or a later one)") from error
    except csv.Error as error:
        raise DataError(f"{path}: row {number + 1}: cannot be read, or only half of it ({error})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: cannot be read, or only half of it ({type(error).__name__})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or ' '.join(str(error).split())[:200]})") from error
    if is_empty and not may_be_empty:
        raise DataError(f"{path}: holds no row")


def open_text(path: Path, newline: str = "") -> IO[str]:
    """Open a text file, compressed or not; a byte order mark is skipped."""
    opener = gzip.open if path.suffix == ".gz" else open
    return cast(IO[str], opener(path, "rt", encoding="utf-8-sig", newline=newline))


def json_lines(path: Path) -> Iterator[str | None]:
    with open_text(path, "\n") as lines:  # other separators may appear inside JSON strings
        yield from (line if line.strip() else None for line in lines)


def json_rows(path: Path) -> Iterable[Any]:
    """Return the objects of a JSON list, of the list `data` of one object, or of JSON lines."""
    with open_text(path) as stream:
        text = stream.read()
    try:
        whole = parse_json(text, "")
    except DataError:
        return json_lines(path)
    rows = whole.get("data", whole) if isinstance(whole, dict) else whole
    return rows if isinstance(rows, list) else [rows]


def csv_rows(path: Path) -> Iterator[Values]:
    """Yield the rows of a CSV file by column name; raise csv.Error for a repeated column or a row of another length."""
    csv.field_size_limit(sys.maxsize)  # the default refuses prompts of more than 131,072 characters
    with open_text(path) as stream:
        rows = csv.DictReader(stream, strict=True)
        header = rows.fieldnames or ()
        repeated = [name for i, name in enumerate(header) if name in header[:i]]
        if repeated:
            raise csv.Error(f"column '{repeated[0]}' appears twice in the header")
        for cells in rows:
            if None in cells or None in cells.values():
                raise csv.Error(f"more or fewer cells than the {len(header)} of the header")
            yield cells


def parquet_rows(path: Path) -> Iterator[Values]:
    """Yield the rows of a Parquet file by column name; raise OSError for another format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(4096):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise OSError(f"as Parquet: {error}") from error
