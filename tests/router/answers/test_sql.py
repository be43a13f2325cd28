from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coe.router.answers.sql import Options
from tests.router.answers.grading import grader

SETUP = """CREATE TABLE pets (name TEXT, kind TEXT, age INT);
INSERT INTO pets VALUES ('Rex', 'dog', 3), ('Tom', 'cat', 5), ('Fido', 'dog', 7);"""
DOGS = Options(setup=SETUP, reference="SELECT name FROM pets WHERE kind = 'dog'")


@pytest.mark.parametrize(
    "answer",
    [
        "SELECT name FROM pets WHERE kind = 'dog'",
        "select name from pets where kind='dog' order by age desc;",
        "Sure:\n```sql\nSELECT name AS n\nFROM pets\nWHERE kind LIKE 'dog';\n```\nIt selects the dogs.",
        "WITH d AS (SELECT * FROM pets WHERE kind = 'dog') SELECT name FROM d",
        "SELECT name FROM pets WHERE kind = 'dog';\n\nThis query reads the names.",
        "SELECT name FROM pets WHERE kind = 'dog'\n\nThis query reads the names.",
        "SELECT `name` FROM `pets` WHERE `kind` = 'dog'",
        "To select the dogs with a condition, use: SELECT name FROM pets WHERE kind = 'dog'",
        "To select the dogs use `SELECT name FROM pets WHERE kind = 'dog'` here.",
        "You can do this with SELECT name FROM pets WHERE kind = 'dog'",
    ],
)
def test_right_rows_in_any_order(answer: str) -> None:
    assert grader(DOGS)(answer) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "SELECT name FROM pets",
        "SELECT * FROM pets WHERE kind = 'dog'",
        "SELECT name FROM cats",
        "SELECT name FROM pets WHERE kind = 'dog' UNION ALL SELECT 'Rex'",
        "I would look in the table.",
        "SELECT \x00",
    ],
)
def test_other_rows_or_no_query(answer: str) -> None:
    assert grader(DOGS)(answer) == 0.0


def test_ordered_compares_the_order() -> None:
    grade = grader(Options(setup=SETUP, reference="SELECT name FROM pets ORDER BY age DESC", ordered=True))
    assert grade("SELECT name FROM pets ORDER BY age DESC") == 1.0
    assert grade("SELECT name FROM pets ORDER BY age") == 0.0


def test_numbers_compare_by_value() -> None:
    grade = grader(Options(setup=SETUP, reference="SELECT AVG(age) FROM pets"))
    assert grade("SELECT SUM(age) / 3 FROM pets") == 1.0
    assert grade("SELECT '5' FROM pets LIMIT 1") == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "DELETE FROM pets",
        "DROP TABLE pets",
        "INSERT INTO pets SELECT * FROM pets",
        "CREATE TABLE t AS SELECT 1",
        "ATTACH '/tmp/x.db' AS x",
        "PRAGMA writable_schema = 1",
        "WITH a AS (SELECT 1) DELETE FROM pets",
        "SELECT load_extension('x')",
        "SELECT writefile('x', 'y')",
    ],
)
def test_anything_but_reading_is_refused(answer: str) -> None:
    assert grader(DOGS)(answer) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT COUNT(*) FROM c",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
        "SELECT randomblob(1000000000)",
        "SELECT COUNT(*) FROM " + ", ".join(f"pets p{i}" for i in range(40)),
        "SELECT " + "(" * 5_000 + "1",
        "SELECT name FROM pets WHERE " + "1 AND " * 1_000_000,
    ],
)
def test_endless_and_oversized_queries_score_zero(answer: str) -> None:
    assert grader(DOGS)(answer) == 0.0


def test_a_write_does_not_last() -> None:
    grade = grader(DOGS)
    grade("DELETE FROM pets")
    assert grade("SELECT name FROM pets WHERE kind = 'dog'") == 1.0


@pytest.mark.parametrize(
    "reference", ["SELECT nope FROM pets", "SELECT name FROM pets WHERE age > 100", "DELETE FROM pets"]
)
def test_options_refuse_a_reference_that_tells_nothing(reference: str) -> None:
    with pytest.raises(ValidationError, match="reference"):
        Options(setup=SETUP, reference=reference)


@given(st.text() | st.text(alphabet="SELECT *name from pets'1;(),").map("SELECT ".__add__))
def test_score_is_zero_or_one(answer: str) -> None:
    assert grader(DOGS)(answer) in (0.0, 1.0)
