"""`sql`: a query, by the rows that it gives on the tables of the prompt."""

from __future__ import annotations

import hashlib
import random
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import Field

from base.answer_text import clip
from base.sql_text import query_in, rows_in
from router.strategies.types import MAX_PROMPT_CHARS, AnswerKind, KeyOf, Question
from router.types import Record

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


class Options(Record):
    """`databases` with random rows on which two queries must give the same rows."""

    databases: int = Field(default=_DATABASES, ge=1, le=10)


def build(options: Options) -> AnswerKind:
    """Keys are digests of the rows that a query gives on databases filled by lot, with the words and numbers of the
    prompt among them (after Zhong et al. 2020, who compare queries on test databases).

    Tables are those that the prompt names with their columns: `CREATE TABLE` or `users(id, name)`. A prompt without is
    declined. The order of rows counts where the prompt speaks of one, names of columns never. A query that does not
    run, or that gives no row anywhere, has no key.
    """

    def key_for(question: Question) -> KeyOf | None:
        text = question.text[:MAX_PROMPT_CHARS]
        tables = tables_in(text)
        if not tables:
            return None
        setups = [filled(tables, text, random.Random(seed)) for seed in range(options.databases)]
        is_ordered = _ORDERED.search(text) is not None

        def key(answer: str) -> str | None:
            query = query_in(clip(answer))
            try:
                found = [[repr(row) for row in rows_in(setup, query)] for setup in setups]
            except (sqlite3.Error, ValueError, OverflowError):  # a NUL in the text; an integer beyond 64 bits
                return None
            if not any(found):
                return None
            shown = found if is_ordered else [sorted(rows) for rows in found]
            return hashlib.sha256(repr(shown).encode("utf-8", "surrogatepass")).hexdigest()

        return key

    return AnswerKind(key_for, is_slow=True)


def tables_in(prompt: str) -> Tables:
    """The tables that a prompt names with two columns or more, or creates."""
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
    """Statements that create the tables and fill them."""
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
    """Words that a condition may name: quoted ones as they are, others as they are and as a name."""
    found = _WORD.findall(prompt)
    yield from (single or double for single, double, _ in found if single or double)
    yield from _NAMES
    bare = [word for _, _, word in found if word and word.lower() not in schema]
    for word in sorted(bare, key=str.islower):  # names first
        yield from (word, word.capitalize())


def _value(name: str, kind: str, row: int, rng: random.Random, words: Sequence[str], amounts: Sequence[float]) -> str:
    """A literal of SQL for a column."""
    if name.lower() == "id":
        return str(row + 1)
    if (kind and _NUMERIC.search(kind)) or (not kind and _AMOUNT.search(name)):
        value = rng.choice(amounts) if not name.lower().endswith("_id") else float(rng.randint(1, 8))
        return f"{value:g}"
    text = rng.choice(_DAYS) if _DAY.search(kind or name) else rng.choice(words)
    return "'" + text.replace("'", "''") + "'"


EXAMPLES = (Options(), Options(databases=5))
