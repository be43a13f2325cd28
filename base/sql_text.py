"""SQL in an answer: where its query is, and the rows that it gives."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from base.answer_text import fenced_blocks

_READS: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_STEPS_PER_CALL: Final = 1_000
_MAX_CALLS: Final = 2_000
"""2 million virtual machine steps, about 20 ms; a query over a probe's few rows takes hundreds. Ours."""
_CODE_SPAN: Final = re.compile(r"(?<!`)`([^`\n ]++ [^`\n]+)`(?!`)")
_MAX_ROWS: Final = 1_000
_MAX_VALUE_BYTES: Final = 100_000
_START: Final = r"(?:select\b|with\s+(?:recursive\s+)?\w+\s*(?:\([^()]*\)\s*)?as\s*\()"
_QUERIES: Final = tuple(
    re.compile(before + _START + r"[^;]*", re.IGNORECASE | re.MULTILINE)
    for before in (r"^[ \t]*", r"(?<=[:`] )", r"\b")
)
"""Places where a query may begin, surest first: a line, after a colon, anywhere ("to select the dogs: SELECT ...")."""

Row = tuple[object, ...]


def _allow_reads(action: int, *_details: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY


def _rounded(value: object) -> object:
    """Numbers by value with six digits, so that 2 and 2.0 are equal and the order of a sum does not matter."""
    return round(float(value), 6) if isinstance(value, int | float) else value


def rows_in(setup: str, query: str) -> Sequence[Row]:
    """Rows of the query, in a new in-memory database that trusted statements set up.

    Once the tables are there, only reading is authorised: no write, PRAGMA, ATTACH or transaction. Work, rows and the
    size of a value are bounded.

    Raises:
        sqlite3.Error: it does not run, is more than one statement, or passes a bound.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(setup)
        calls = iter(range(_MAX_CALLS))
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        connection.set_authorizer(_allow_reads)
        connection.set_progress_handler(lambda: int(next(calls, None) is None), _STEPS_PER_CALL)
        rows = connection.execute(query).fetchmany(_MAX_ROWS + 1)
    if len(rows) > _MAX_ROWS:
        raise sqlite3.DataError(f"more than {_MAX_ROWS} rows")
    return [tuple(_rounded(value) for value in row) for row in rows]


def query_in(answer: str) -> str:
    """From where a SELECT or a WITH begins to the next semicolon, blank line or end of the code: in a fenced block or a
    code span if there is one, else in the text. The whole text when there is none, which then fails to run or to read.
    """
    for text in (*fenced_blocks(answer), *_CODE_SPAN.findall(answer), answer):
        found = next(filter(None, (query.search(text) for query in _QUERIES)), None)
        if found:
            return found.group().strip().split("\n\n")[0].replace("`", "")
    return answer
