"""`sql`: the query in the answer gives the rows that a reference query gives."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Self

from pydantic import Field, model_validator

from base.answer_text import clip
from base.sql_text import query_in, rows_in
from eval.graders import Grader
from router.types import Record


class Options(Record):
    """`setup`: CREATE TABLE and INSERT statements, trusted. `reference`: a query that is right; it must give at least
    one row. `ordered`: the order of the rows counts. The names of the columns never count, their order does."""

    setup: str
    reference: str = Field(min_length=1)
    ordered: bool = False

    @model_validator(mode="after")
    def _reference_runs(self) -> Self:
        try:
            rows = rows_in(self.setup, self.reference)
        except sqlite3.Error as error:
            raise ValueError(f"setup or reference does not run: {error}") from error
        if not rows:
            raise ValueError(f"reference gives no row, so no answer could be wrong: {self.reference}")
        return self


def build(options: Options) -> Grader:
    """A grader that gives 1 or 0."""
    wanted = rows_in(options.setup, options.reference)

    def grade(answer: str) -> float:
        try:
            rows = rows_in(options.setup, query_in(clip(answer)))
        except (sqlite3.Error, ValueError, OverflowError):
            return 0.0  # ValueError: a NUL in the text; OverflowError: an integer beyond 64 bits
        return float(list(rows) == list(wanted) if options.ordered else Counter(rows) == Counter(wanted))

    return grade


EXAMPLES: tuple[Options, ...] = (
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
