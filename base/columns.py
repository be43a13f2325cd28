"""Checked columns of Parquet files. Rows are counted from 1 in messages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from base.errors import DataError, allowed_values

Float64Array = NDArray[np.float64]

LARGEST_AMOUNT = 3.4028234663852886e38
"""The largest 32-bit float: an outcome table holds its amounts in these."""


def read_table(path: Path, required: Sequence[str]) -> Any:
    """A pyarrow table.

    Raises:
        DataError: the file is missing, is not Parquet, or lacks a required column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: no such file; an outcome table is a folder with prompts.parquet and scores.parquet")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())[:200]})") from error
    for name in required:
        if name not in table.column_names:
            raise DataError(f"{path}: column '{name}' is missing{allowed_values(name, table.column_names)}")
    return table


def cells(path: Path, table: Any, name: str) -> list[Any]:
    """The values of a column. Raises DataError with row and column where a text is not UTF-8."""
    found: list[Any] = []
    try:
        for cell in table[name]:
            found.append(cell.as_py())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: row {len(found) + 1}, column '{name}': is not UTF-8 text") from error
    return found


def texts(path: Path, table: Any, name: str) -> list[str]:
    """A text column without empty cells. Raises DataError with row and column."""
    column = [None if value is None else str(value) for value in cells(path, table, name)]
    for row, value in enumerate(column, start=1):
        if not value:
            raise DataError(f"{path}: row {row}, column '{name}': is empty")
    return [value for value in column if value is not None]


def optional_texts(path: Path, table: Any, name: str, default: str) -> list[str]:
    """A text column, `default` where a cell is empty or the column is not there. Raises DataError as `texts` does."""
    if name not in table.column_names:
        return [default] * int(table.num_rows)
    return [str(value) if value else default for value in cells(path, table, name)]


def numbers(path: Path, table: Any, name: str) -> Float64Array:
    """A number column (rows,), NaN where a cell is empty or the column is not there.

    Raises:
        DataError: the column does not hold numbers.
    """
    import pyarrow as pa

    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    try:
        column = table[name].cast(pa.float64())
    except pa.ArrowException as error:
        raise DataError(
            f"{path}: column '{name}': holds {table[name].type}, expected numbers ({' '.join(str(error).split())[:99]})"
        ) from error
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def require_range(
    path: Path, name: str, values: Float64Array, high: float = LARGEST_AMOUNT, *, may_miss: bool = True
) -> None:
    """Raises DataError on the first value out of [0, high], by default an amount, or not there when it must be."""
    wrong = ~((values >= 0) & (values <= high))
    if may_miss:
        wrong &= ~np.isnan(values)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        expected = f"0 to {high:g}" if high < LARGEST_AMOUNT else f"0 or more, at most {high:g}"
        raise DataError(f"{path}: row {row + 1}, column '{name}': {values[row]:g} is not allowed; expected {expected}")


def positions(names: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """(n,) index of each name in `known`, -1 where it is not there."""
    index = {name: i for i, name in enumerate(known)}
    return np.array([index.get(name, -1) for name in names], dtype=np.int64)
