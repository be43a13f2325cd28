"""`sql`: a query, by the rows that it gives on tables of the prompt or of a probe."""

from __future__ import annotations

import hashlib
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final, Self

from pydantic import Field, model_validator

from coe.router.answers import MAX_PROMPT_CHARS, AnswerKind, KeyOf, clip, fenced_blocks
from coe.router.types import Record

Row = tuple[object, ...]
Tables = Mapping[str, Sequence[tuple[str, str]]]
"""Name -> columns with their declared types, empty where none is declared."""

_TABLE: Final = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_COLUMN: Final = re.compile(r"""["`\[]?([A-Za-z_]\w*)["`\]]?(?:\s+([A-Za-z]+)(?:\s*\([^()]*\))?(?:\s[\w\s'()]*)?)?""")
_NO_COLUMN: Final = re.compile(r"(?:primary|foreign|unique|check|constraint|key|index)\b", re.IGNORECASE)
_NO_TABLE: Final = re.compile(
    r"values|in|references|key|check|unique|count|sum|avg|min|max|varchar|decimal", re.IGNORECASE
)
_BRACKETS: Final = re.compile(r"\([^()]*\)")
_NUMERIC: Final = re.compile(r"int|real|num|dec|float|double|bool|money", re.IGNORECASE)
_AMOUNT: Final = re.compile(
    r"id$|_id|age|price|amount|total|qty|quantity|count|salary|year|score|number|stock|rating|points|cost|weight|height",
    re.IGNORECASE,
)
_DAY: Final = re.compile(r"date|day|time|created|updated|born|_at$", re.IGNORECASE)
_ORDERED: Final = re.compile(
    r"\b(?:order(?:ed|ing)?|sort(?:ed|ing|s)?|rank(?:ed|ing)?|(?:de|a)scending)\b|\balphabetical", re.IGNORECASE
)
_WORD: Final = re.compile(r"'([^']{1,40})'|\"([^\"]{1,40})\"|\b([A-Za-z]{3,20})\b")
_NUMBER: Final = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
_NAMES: Final = ("Ada", "Ben", "Cleo", "Dora", "Eli", "Fay", "Gus", "Hana")
_DAYS: Final = ("2023-11-05", "2024-01-15", "2024-02-29", "2024-06-30", "2025-03-01")
_DATABASES, _ROWS, _MOST_WORDS = 3, 40, 24
_MAX_BEFORE: Final = 64  # characters before the name of a table, where `CREATE TABLE` may be


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


class Options(Record):
    """`databases` with random rows on which two queries must give the same rows.

    `setup`: CREATE TABLE and INSERT statements, trusted. `reference`: a query that is right; it must give at least one
    row. `ordered`: the order of its rows counts. The names of the columns never count, their order does.
    """

    databases: int = Field(default=_DATABASES, ge=1, le=10)
    setup: str = ""
    reference: str = ""
    ordered: bool = False

    @model_validator(mode="after")
    def _reference_runs(self) -> Self:
        try:
            rows = rows_in(self.setup, self.reference) if self.reference else [()]
        except sqlite3.Error as error:
            raise ValueError(f"setup or reference does not run: {error}") from error
        if not rows:
            raise ValueError(f"reference gives no row, so no answer could be wrong: {self.reference}")
        return self


def build(options: Options) -> AnswerKind:
    """Build the kind whose keys are digests of the rows that a query returns on randomly filled databases.

    Words and numbers of the prompt are among the values (after Zhong et al. 2020, who compare queries on test
    databases). Tables are those that the prompt names with their columns: `CREATE TABLE` or `users(id, name)`. A prompt
    without tables is declined. The order of rows counts if the prompt speaks of one; names of columns never do. A query
    that does not run, or that returns no row anywhere, has no key.
    """

    def key_for(prompt: str) -> KeyOf | None:
        text = prompt[:MAX_PROMPT_CHARS]
        tables = tables_in(text)
        if not tables:
            return None
        setups = [filled(tables, text, random.Random(seed)) for seed in range(options.databases)]
        is_ordered = _ORDERED.search(text) is not None

        def key(answer: str) -> str | None:
            found = [[repr(row) for row in rows_given(setup, answer)] for setup in setups]
            if not any(found):
                return None
            shown = found if is_ordered else [sorted(rows) for rows in found]
            return hashlib.sha256(repr(shown).encode("utf-8", "surrogatepass")).hexdigest()

        return key

    wanted = rows_in(options.setup, options.reference) if options.reference else []

    def score(answer: str) -> float:
        rows = rows_given(options.setup, answer)
        return float(rows == wanted if options.ordered else Counter(rows) == Counter(wanted))

    return AnswerKind(key_for, score if wanted else None, is_slow=True)


def rows_given(setup: str, answer: str) -> list[Row]:
    """Return the rows of the query in an answer; none if it does not run."""
    try:
        return rows_in(setup, query_in(clip(answer)))
    except (sqlite3.Error, ValueError, OverflowError):  # a NUL in the text; an integer beyond 64 bits
        return []


def tables_in(prompt: str) -> Tables:
    """Return the tables that a prompt creates, or names with two columns or more."""
    found: dict[str, list[tuple[str, str]]] = {}
    for match in _TABLE.finditer(prompt):
        name, inside = match.group(1), match.group(2)
        before = prompt[max(0, match.start() - _MAX_BEFORE) : match.start()]
        is_created = re.search(r"\btable\s+(?:if\s+not\s+exists\s+)?$", before, re.IGNORECASE)
        parts = [part.strip() for part in _BRACKETS.sub("()", inside).split(",")]
        columns = [_COLUMN.fullmatch(part) for part in parts if not _NO_COLUMN.match(part)]
        if _NO_TABLE.fullmatch(name) or None in columns or len(columns) < (1 if is_created else 2):
            continue
        named = {column.group(1): column.group(2) or "" for column in columns if column is not None}
        if name.lower() not in {each.lower() for each in found} and len({each.lower() for each in named}) == len(named):
            found[name] = list(named.items())
    return found


def filled(tables: Tables, prompt: str, rng: random.Random) -> str:
    """Return SQL statements that create the tables and fill them."""
    schema = {name.lower() for table in tables for name in (table, *(column for column, _ in tables[table]))}
    words = list(dict.fromkeys(_values_of(prompt, schema)))[:_MOST_WORDS]
    numbers = [float(text) for text in _NUMBER.findall(prompt)[:_MOST_WORDS]]
    amounts = [n + step for n in numbers for step in (-1, 0, 1)] + [float(n) for n in range(1, 9)]
    lines = []
    for table, columns in tables.items():
        lines.append(
            f'CREATE TABLE "{table}" ({", ".join(f"{chr(34)}{name}{chr(34)} {kind}" for name, kind in columns)})'
        )
        for row in range(_ROWS):
            values = [_value(name, kind, row, rng, words, amounts) for name, kind in columns]
            lines.append(f'INSERT INTO "{table}" VALUES ({", ".join(values)})')
    return ";\n".join(lines)


def _values_of(prompt: str, schema: set[str]) -> Iterator[str]:
    """Yield words that a condition may name: quoted ones as they are, others as they are and capitalized."""
    found = _WORD.findall(prompt)
    yield from (single or double for single, double, _ in found if single or double)
    yield from _NAMES
    bare = [word for _, _, word in found if word and word.lower() not in schema]
    for word in sorted(bare, key=str.islower):  # names first
        yield from (word, word.capitalize())


def _value(name: str, kind: str, row: int, rng: random.Random, words: Sequence[str], amounts: Sequence[float]) -> str:
    """Return an SQL literal for a column."""
    if name.lower() == "id":
        return str(row + 1)
    if (kind and _NUMERIC.search(kind)) or (not kind and _AMOUNT.search(name)):
        value = rng.choice(amounts) if not name.lower().endswith("_id") else float(rng.randint(1, 8))
        return f"{value:g}"
    text = rng.choice(_DAYS) if _DAY.search(kind or name) else rng.choice(words)
    return "'" + text.replace("'", "''") + "'"


def _allow_reads(action: int, *_details: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY


def _rounded(value: object) -> object:
    """Round numbers to six digits, so that 2 and 2.0 are equal and the order of a sum does not matter."""
    return round(float(value), 6) if isinstance(value, int | float) else value


def rows_in(setup: str, query: str) -> list[Row]:
    """Run the query in a new in-memory database that trusted statements set up, and return its rows. Once the tables
    are there, only reading is authorised: no write, PRAGMA, ATTACH or transaction. Work, rows and the size of a value
    are bounded.

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
    """Return the query of an answer, from its SELECT or WITH to the next semicolon, blank line or end of the code. It
    is looked for in fenced blocks, then in code spans, then in the text. Without any, the whole answer is returned,
    which then fails to run."""
    for text in (*fenced_blocks(answer), *_CODE_SPAN.findall(answer), answer):
        found = next(filter(None, (query.search(text) for query in _QUERIES)), None)
        if found:
            return found.group().strip().split("\n\n")[0].replace("`", "")
    return answer


EXAMPLES = (
    Options(),
    Options(databases=5),
    Options(
        setup="CREATE TABLE pets (name TEXT, age INT); INSERT INTO pets VALUES ('Rex', 3), ('Tom', 5);",
        reference="SELECT name FROM pets WHERE age > 4",
    ),
    Options(
        setup="CREATE TABLE pets (name TEXT, age INT); INSERT INTO pets VALUES ('Rex', 3), ('Tom', 5);",
        reference="SELECT name FROM pets ORDER BY age DESC",
        ordered=True,
    ),
)
