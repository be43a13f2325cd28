"""Rows of JSON lines, JSON, CSV and Parquet files, read as pydantic models; each fault names file, row and field.

Text files may be compressed (.gz). Rows are counted from 1; blank lines count, the header of a CSV file does not.
pyarrow reads Parquet alone: its readers of JSON and CSV guess one type for a column, and people's logs hold several.
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
"""The largest 32-bit float: an outcome table holds its amounts in these."""

ABSENT = object()
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""A JSON escape of half a character."""

ROUTER_ARENA = frozenset(("global index", "global_index", "Global Index", "Global_Index"))
"""Names of a field that all rows of RouterArena have."""

M = TypeVar("M", bound=BaseModel)
Values = Mapping[str, Any]


def as_number(value: Any) -> Any:
    """True and false as texts, too, are 1 and 0; an empty text and NaN are no number."""
    if isinstance(value, str):
        value = {"true": True, "false": False, "": None, "nan": None}.get(value.strip().lower(), value)
    return None if value != value else value


class Row(BaseModel):
    """Fields of a row. Others are not looked at; whole numbers count as texts, since ids often are."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)


Text = Annotated[str, StringConstraints(pattern=r"\S")]
OptionalText = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Number = Annotated[Finite | None, BeforeValidator(as_number)]
Amount = Annotated[Annotated[Finite, Field(ge=0, le=LARGEST_AMOUNT)] | None, BeforeValidator(as_number)]
"""A cost, a count, a time; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a file. `place` is "file: row 3"."""

    place: str
    values: Values

    def fault(self, name: str, problem: str) -> DataError:
        return DataError(f"{self.place}, field '{name}': {problem}")

    def get(self, name: str) -> Any:
        """The value, or `ABSENT`. A name with dots leads into objects: `metadata.subject`."""
        found: Any = self.values
        for part in (name,) if name in self.values else name.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return ABSENT
            found = found[part]
        return found

    def read(self, row: type[M], names: Mapping[str, str] = MappingProxyType({}), **given: object) -> M:
        """The fields of a kind of row.

        Args:
            names: the row's name of a field -> the file's, where it is another.
            given: values of fields that the file does not have.

        Raises:
            DataError: with the field, what it has and what is allowed.
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
    """Describes a value by its JSON type, with a short one itself; nothing of a long text, which may be a prompt."""
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", bytes: "bytes"}
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 20 else "a text"
    return names.get(type(value), "") or f"{value}"[:20]


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
    """Raises DataError when the value is not an object, or is a row of RouterArena: who fits on that test proves
    nothing."""
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected an object; got {kind_of(values)}")
    if not ROUTER_ARENA.isdisjoint(values):
        raise DataError(
            f"{place}: has the field 'global index' of RouterArena, which is a test and never used for fitting"
        )
    return Record(place, values)


def ending_of(path: Path) -> str:
    """`.csv` of `x.csv` and of `x.csv.gz`."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def read_records(path: Path) -> Iterator[Record]:
    """The rows of a file, by its ending: .csv, .parquet, .jsonl, or JSON, which may be lines as well.

    Raises:
        DataError: with the row; a file that cannot be read, holds half a row, or none.
        MissingExtraError: pyarrow is not installed.
    """
    yield from numbered(
        path, {".csv": csv_rows, ".parquet": parquet_rows, ".jsonl": json_lines}.get(ending_of(path), json_rows)
    )


def json_records(path: Path) -> Iterator[Record]:
    """The rows of JSON lines. Raises DataError as `read_records` does."""
    return numbered(path, json_lines)


def numbered(path: Path, rows_of: Callable[[Path], Iterable[Any]], *, may_be_empty: bool = False) -> Iterator[Record]:
    """Rows with their places; None is a blank one. Raises DataError as `read_records` does."""
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
    opener = gzip.open if path.suffix == ".gz" else open
    return cast(IO[str], opener(path, "rt", encoding="utf-8-sig", newline=newline))


def json_lines(path: Path) -> Iterator[str | None]:
    with open_text(path, "\n") as lines:  # other separators may appear inside JSON strings
        yield from (line if line.strip() else None for line in lines)


def json_rows(path: Path) -> Iterable[Any]:
    """The objects of a JSON list, of the list `data` of one object, or of JSON lines."""
    with open_text(path) as stream:
        text = stream.read()
    try:
        whole = parse_json(text, "")
    except DataError:
        return json_lines(path)
    rows = whole.get("data", whole) if isinstance(whole, dict) else whole
    return rows if isinstance(rows, list) else [rows]


def csv_rows(path: Path) -> Iterator[Values]:
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
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(4096):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise OSError(f"as Parquet: {error}") from error
